/* Included first into every C++ file of llama.cpp when it is built here (compare.py --setup).
 *
 * GCC up to 12 tells its optimiser that `_tile_loadconfig` reads 8 bytes of the 64 it reads, so the stores to the rest are
 * dropped, the tiles stay without shape, and the first AMX instruction of llama.cpp dies of an illegal instruction. */
#if defined(__AMX_TILE__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
#define _tile_loadconfig(config) __asm__ volatile("ldtilecfg\t%X0" ::"m"(*(const char(*)[64])(config)))
#endif
