"""Tests of the comparison's arithmetic and of what it refuses, without either program: python3 -m unittest discover benches/peers"""

import argparse
import json
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import common
import engines
import files
import matrix
from engines import LOAD, PEAK, Setting, Test

ARGS = argparse.Namespace(brick="brick", python="python", threads=2, repeat=1)
PP, TG = Test("prefill", 512), Test("decode", 64, depth=4096, sequences=8)
PLAIN, FLASH = Setting(False, True), Setting(True, True)


def brick_report(rows, debug=False):
    return json.dumps({"build": {"debug_assertions": debug}, "backend": "cpu test", "load_ms": 1.0,
                       "engines": [{"setup_ms": 2.0, "first_forward_ms": 4.0}],
                       "rows": [{"test": name, "tok_s": tok_s} for name, tok_s in rows.items()]})


class Engines(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.gguf, self.size = Path(folder.name, "model.gguf"), 10
        self.gguf.write_bytes(b"x" * self.size)

    def test_names_are_those_of_brick_bench(self):
        self.assertEqual([PP.name, TG.name], ["pp512", "tg64 @ 4096 x8"])

    def test_brick_gets_lists_and_gives_figures(self):
        tests = [Test("decode", 64, 128), Test("decode", 64, 4096)]
        out = brick_report({"tg64 @ 128": [3.0, 1.0, 2.0], "tg64 @ 4096": [5.0]})
        with mock.patch.object(common, "run_and_watch", return_value=(out, 3 * self.size)) as run:
            found = engines.brick(ARGS, self.gguf, tests, 1)
        command = " ".join(map(str, run.call_args.args[0]))
        self.assertIn("--pp 0 --tg 64 --depth 128,4096 --sequences 1 --repeat 1 -t 1 --json", command)
        self.assertEqual(found, {"tg64 @ 128": 2.0, "tg64 @ 4096": 5.0, LOAD: 7.0, PEAK: 3.0, "about": "cpu test"})

    def test_brick_is_refused_with_assertions_or_other_rows(self):
        for out, message in ((brick_report({"pp512": [1.0]}, debug=True), "--release"), (brick_report({"pp511": [1.0]}), "pp511")):
            with mock.patch.object(common, "run_and_watch", return_value=(out, 1)), self.assertRaisesRegex(SystemExit, message):
                engines.brick(ARGS, self.gguf, [PP], 2)

    def settings(self, speeds):
        def llama(args, setting, gguf, tests, threads):
            return dict(zip([t.name for t in tests], speeds[setting.repack]))
        with mock.patch.object(engines, "llama", llama):
            return [s.mark for s in engines.settings(ARGS, self.gguf, ("pp512",))]

    def test_a_form_of_weights_that_is_far_behind_is_left_out(self):
        self.assertEqual(self.settings({True: (100, 20), False: (50, 10)}), ["R", "FR"])
        self.assertEqual(self.settings({True: (50, 10), False: (100, 20)}), ["–", "F"])
        self.assertEqual(self.settings({True: (100, 19), False: (50, 20)}), ["R", "FR", "–", "F"])

    def test_memory_and_load_try_every_form(self):
        self.assertEqual([s.mark for s in engines.settings(ARGS, self.gguf, (PEAK,))], ["R", "RC", "–", "C"])
        self.assertEqual(Setting(True, False, False).flags, ["--flash", "--no-repack", "--no-mmap"])

    def test_perplexities_of_different_tokens_are_refused(self):
        base = {"perplexity": 9.0, "perplexity_standard_error": 0.5, "predicted_tokens": 3, "text_tokens": 8}

        def answers(ids, theirs):
            return [json.dumps(base), json.dumps(base | theirs), ids + "\n"]
        digest = common.text_sha256("1 2 3")
        text = __file__
        with mock.patch.object(common, "run", side_effect=answers("1 2 3", {"ids_sha256": digest})):
            found = engines.perplexities(ARGS, self.gguf, FLASH, text)
        self.assertEqual(found["llama.cpp"]["setting"], "FR")
        for ids, theirs in (("1 2 4", {"ids_sha256": digest}), ("1 2 3", {"ids_sha256": digest, "predicted_tokens": 4})):
            with mock.patch.object(common, "run", side_effect=answers(ids, theirs)), self.assertRaisesRegex(SystemExit, "tokens"):
                engines.perplexities(ARGS, self.gguf, FLASH, text)


class Matrix(unittest.TestCase):
    experiment = matrix.Experiment("test", ((None, (PP, TG)),), (), contrasts=((TG.name, PP.name),))
    rounds = [{"llama.cpp R": {PP.name: 100.0 * f, TG.name: 10.0 * f}, "llama.cpp FR": {PP.name: 50.0 * f, TG.name: 20.0 * f},
               "brick": {PP.name: 300.0 * f, TG.name: 30.0 * f}} for f in (1.0, 1.5, 0.7, 1.0, 1.2)]

    def test_the_peers_best_setting_counts_figure_by_figure(self):
        result = matrix.evaluate(self.experiment, [PLAIN, FLASH], self.rounds)
        pp, tg = result["figures"][PP.name], result["figures"][TG.name]
        self.assertEqual((pp["setting"], tg["setting"]), ("R", "FR"))
        # The machine's speed differs by round and cancels.
        self.assertAlmostEqual(pp["ratio"]["estimate"], 3.0)
        self.assertAlmostEqual(tg["ratio"]["low"], 1.5)
        contrast = result["contrasts"][f"{TG.name} / {PP.name}"]
        self.assertAlmostEqual(contrast["brick"]["estimate"], 0.1)
        self.assertAlmostEqual(contrast["llama.cpp"]["estimate"], 0.2)

    def test_of_memory_less_is_better(self):
        experiment = matrix.Experiment("test", ((None, (PP,)),), (), figures=(PEAK,))
        rounds = [{"llama.cpp R": {PEAK: 2.0}, "llama.cpp FR": {PEAK: 1.6}, "brick": {PEAK: 1.2}}] * 5
        q = matrix.evaluate(experiment, [PLAIN, FLASH], rounds)["figures"][PEAK]
        self.assertEqual(q["setting"], "FR")
        self.assertAlmostEqual(q["ratio"]["estimate"], 0.75)

    def test_the_table(self):
        result = matrix.evaluate(self.experiment, [PLAIN, FLASH], self.rounds)
        value = {"perplexity": 19.9681, "perplexity_standard_error": 1.2638}
        result |= {"perplexity": {"llama.cpp": value, "brick": value}, "others": "1%"}
        lines = matrix.table([("Tiny Q4_1", result)]).splitlines()
        self.assertEqual(lines[2], "| Tiny Q4_1 | 100.0 R | 300.0 | 3.00 [3.00, 3.00] | 20.00 FR | 30.00 | 1.50 [1.50, 1.50] "
                                   "| 0.20 [0.20, 0.20] | 0.10 [0.10, 0.10] | 19.968 ± 1.264 | 19.968 ± 1.264 | 1% |")
        self.assertEqual({line.count("|") for line in lines[:3]}, {13})

    def test_figures_of_several_runs_say_their_threads(self):
        self.assertEqual(matrix.figures(matrix.EXPERIMENTS["threads"])[::3], ("pp512, 1 thread", "tg128, 2 threads"))
        for name, experiment in matrix.EXPERIMENTS.items():
            known = matrix.figures(experiment)
            self.assertTrue(all(f in known for pair in experiment.contrasts for f in pair), name)
            self.assertTrue(all(m in files.FILES for m in experiment.models), name)


class Statistics(unittest.TestCase):
    def test_a_ratio_lies_in_its_interval_and_is_the_same_every_time(self):
        pairs = [(1.0, 1.0 + 0.01 * (i * 7 % 11)) for i in range(20)]
        q = common.ratio(pairs)
        self.assertTrue(q["low"] <= q["estimate"] <= q["high"] and q["low"] < q["high"])
        self.assertEqual(q, common.ratio(pairs))

    def test_a_busy_machine_takes_the_word_from_the_figures(self):
        watch = common.Watch(2)
        self.assertEqual(watch.short(), "unknown")
        watch.limit, watch.shares = 0.05, [0.0, 0.04, 0.9]
        self.assertEqual(watch.short(), "4%")
        watch.shares.append(0.5)
        watch.shares.append(0.6)
        self.assertEqual(watch.short(), "50% INCONCLUSIVE")
        self.assertTrue(watch.summary().startswith("INCONCLUSIVE"))

    def test_a_child_that_fails_says_why(self):
        out, peak = common.run_and_watch(["/bin/sh", "-c", "echo fine"])
        self.assertEqual(out, "fine\n")
        self.assertGreater(peak, 0)
        with self.assertRaisesRegex(SystemExit, "(?s)failed with 3.*reason"):
            common.run_and_watch(["/bin/sh", "-c", "echo reason >&2; exit 3"])


if __name__ == "__main__":
    unittest.main()
