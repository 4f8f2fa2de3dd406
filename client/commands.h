/* The subcommands: argv[0] is the command's name. Each returns the exit status. */
#pragma once

int command_run(int argc, char **argv);
int command_ps(int argc, char **argv);
int command_stat(int argc, char **argv);
int command_limit(int argc, char **argv);
int command_tiers(int argc, char **argv);
int command_snapshot(int argc, char **argv);
int command_trace(int argc, char **argv);
