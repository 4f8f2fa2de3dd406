/*
 * Stands between a shell and the program: the shell sees `upager run`, and it shall look as if it
 * saw the program. Signals sent to us reach it, we stop and go on as it does, and its end is ours.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

struct supervised {
	const char *path; /* the executable */
	char **argv;      /* ended by NULL */
	char **env;       /* ended by NULL */
	int control;      /* the daemon's connection, polled for its end; -1 = none */
	int daemon;       /* pidfd of the embedded daemon; -1 = none */
	pid_t daemon_pid;

	/* results */
	pid_t pid;
	int status;        /* as from waitpid */
	bool lost_daemon;  /* the embedded daemon died first: every descendant was killed */
	bool lost_control; /* a shared daemon closed the connection */
};

/* Blocks signals so that none is lost. => first of all; returns a descriptor that is readable when
 * a signal waits, or -errno. */
int supervise_prepare(void);

/* The signal that would have ended us since supervise_prepare, or 0. */
int supervise_interrupted(void);

/* Runs the program to its end. 0, or the errno of the failed fork or exec. */
int supervise_run(struct supervised *program);

/* Ends this process as the program ended. */
_Noreturn void supervise_exit_like(int status);
