/*
 * The program that is to run: where it is, and whether a preloaded library can reach it.
 */
#pragma once

/* Finds `command` the way execvp does and looks at what it is. 0 and *ret_path (free it), or the
 * exit status (127 not found, 126 not executable or out of a preload's reach) after saying why. */
int program_find(const char *command, char **ret_path);
