/* The processes of a group that never attached: static programs, children without a hello. They are
 * known by the group's key in the environment they were started with. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

/* Kills every process whose environment at its start held the key, and whose owner is uid (of any
 * owner if uid is 0): what a user could not kill is not killed for them. Returns how many. */
unsigned family_kill(uint64_t key, uid_t uid);
