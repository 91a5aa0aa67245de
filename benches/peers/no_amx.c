/* Loaded before everything else, it answers llama.cpp's request for AMX with no: the same build then runs as on a processor that
 * has none. Linux gives tile registers only to processes that ask, by arch_prctl(ARCH_REQ_XCOMP_PERM, ...), and llama.cpp falls
 * back to its AVX-512 kernels and interleaved rows when that fails. All other system calls pass. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <sys/syscall.h>

#define ARCH_REQ_XCOMP_PERM 0x1023

long syscall(long number, ...) {
    static long (*next)(long, ...);
    long arg[6];
    va_list args;
    va_start(args, number);
    for (int i = 0; i < 6; i++) arg[i] = va_arg(args, long);
    va_end(args);
    if (number == SYS_arch_prctl && arg[0] == ARCH_REQ_XCOMP_PERM) {
        errno = EPERM;
        return -1;
    }
    if (!next) next = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    return next(number, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
}
