/* Processes by descriptor: they cannot be mistaken for another that got the same number. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

int pidfd_open_pid(pid_t pid);
/* 0 or -errno; -ESRCH: it has ended. */
int pidfd_kill(int pidfd, int signal);
/* Has the process ended (all threads)? Waits up to timeout_ms. */
bool pidfd_ended(int pidfd, int timeout_ms);
/* A duplicate of a descriptor of the process; close-on-exec. -EBADF: it has none of that number. */
int pidfd_take(int pidfd, int fd);
/* The peer of a Unix socket, or -errno: Linux before 6.5 does not tell. */
int pidfd_of_peer(int socket);
/* 1: both processes have the same address space; 0: not; or -errno. kcmp(2). */
int pidfd_same_vm(pid_t a, pid_t b);
