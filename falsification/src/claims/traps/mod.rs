//! TRAP-01–TRAP-31: mistakes that others made in engines like this one, as claims that they are not made here.
//!
//! The numbers are those of the checklist in the data model's specification, in its order.

mod absent;
mod compute;
mod load;
mod run;

use crate::claim::{Claim, Family, Outcome};
use crate::context::Context;

const fn trap(
    id: &'static str,
    statement: &'static str,
    threshold: &'static str,
    check: fn(&Context) -> Outcome,
) -> Claim {
    Claim { id, statement, family: Family::Trap, threshold, check }
}

pub(super) const CLAIMS: &[Claim] = &[
    trap("TRAP-01", "Ids of storage types are ggml's", "Q4_K = 12, Q6_K = 14, …", load::dtype_ids),
    trap(
        "TRAP-02",
        "The QKV bias takes part on every path",
        "each bias has an effect, fused or not",
        load::bias_on_every_path,
    ),
    trap(
        "TRAP-03",
        "Fused QKV is hidden + 2·kv_dim wide, and heads share KV heads in groups",
        "exact",
        load::grouped_heads,
    ),
    trap(
        "TRAP-04",
        "Pairing and base of the rotary embedding come from the file, positions are right in any batch",
        "exact",
        run::rope_everywhere,
    ),
    trap("TRAP-05", "The epsilon of the norms comes from the metadata", "exact; a change has an effect", load::epsilon),
    trap("TRAP-06", "Matrices are [out, in]: rows are outputs", "exact", compute::layout),
    trap("TRAP-07", "Nibbles and scales of Q4_K are mapped as the format says", "exact", compute::q4_k_mapping),
    trap(
        "TRAP-08",
        "The storage type is what the file says, not what fits the byte size",
        "Q4_0 and IQ4_NL of equal size differ",
        load::type_from_metadata,
    ),
    trap(
        "TRAP-09",
        "The feed-forward network reads the normalised state",
        "every layer, both graphs",
        load::ffn_reads_norm,
    ),
    trap("TRAP-10", "Weights may lie at any address", "bits do not depend on alignment", compute::unaligned),
    trap("TRAP-11", "Shared memory is addressed as it must be", "GPU", absent::cuda),
    trap("TRAP-12", "PTX has its header, full shuffle masks and valid instruction forms", "GPU", absent::cuda),
    trap("TRAP-13", "Launch sizes are rounded up in integers", "GPU", absent::cuda),
    trap(
        "TRAP-14",
        "Whole models agree between paths, not just kernels",
        "bits; fused, threads, instruction sets",
        run::paths_agree,
    ),
    trap(
        "TRAP-15",
        "The reference is independent and complete: it notices what is left out",
        "each change shows 20 times over",
        run::reference_notices,
    ),
    trap("TRAP-16", "Recorded figures belong to the very file that is tested", "SHA-256", load::same_file),
    trap("TRAP-17", "Formats of 256-blocks only take rows of whole blocks", "refused otherwise", compute::whole_blocks),
    trap("TRAP-18", "The hot path has no device synchronisation and no host copy", "GPU", absent::cuda),
    trap(
        "TRAP-19",
        "Layer counts, KV sizes and chunk sizes are not hard-coded",
        "any chunk gives the same bits",
        run::nothing_hard_coded,
    ),
    trap("TRAP-20", "A second request on the same engine gives what the first gave", "bits", run::second_request),
    trap("TRAP-21", "Sequences have caches of their own; a rolled-back one is as before", "bits", run::sequences_apart),
    trap("TRAP-22", "A prompt is masked causally in one call as token by token", "bits", run::prefill_mask),
    trap(
        "TRAP-23",
        "Tokens are those of the file; special ones are single ids, ids beyond the vocabulary are refused",
        "exact",
        load::tokenizer,
    ),
    trap(
        "TRAP-24",
        "Generation loops, and uses the cache",
        "20 tokens, as the reference; context grows by one",
        run::generation_loops,
    ),
    trap("TRAP-25", "SafeTensors names without the `model.` prefix are understood", "loads", absent::safetensors),
    trap(
        "TRAP-26",
        "Results do not depend on the number of rows in a call",
        "bits, 1 to 44 rows",
        run::any_number_of_rows,
    ),
    trap("TRAP-27", "The greedy token comes from the device", "GPU", absent::cuda),
    trap("TRAP-28", "Tied embeddings serve as LM head", "same bits as a copy", load::tied),
    trap(
        "TRAP-29",
        "Every storage type is computed right, for one token and for many",
        "15 types, each level, 1e-5",
        compute::every_type,
    ),
    trap(
        "TRAP-30",
        "The engine compared with really ran where it is said to have run",
        "another engine",
        absent::other_engine,
    ),
    trap("TRAP-31", "The gate itself can fail: no skip, no panic, no empty run passes", "exact", absent::gate),
];
