/*
 * Attaching a program to the daemon: it hands over its uffd and a few descriptors of /proc/self,
 * and gets its agents. Its forked children do the same by themselves. Compiled into the preload
 * library and into libupager.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/un.h>

/* => once in a process, by one thread. `address` is the session socket. debug: says on stderr why
 * it failed, also in children. -EALREADY: it has been tried; -errno: the program runs unpaged. */
int attach_program(const struct sockaddr_un *address, uint64_t group_key, bool debug);
