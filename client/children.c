#include "children.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define YOUNG_MS 20 /* milliseconds; an agent is named long before */

struct process {
	pid_t pid, parent;
	char comm[16];
	bool below; /* a descendant of ours */
};

struct processes {
	struct process *list;
	size_t n, capacity;
};

/* "PID (COMM) STATE PPID …"; the command may hold parentheses and spaces. */
static bool read_stat(const char *pid, struct process *ret)
{
	char path[64], text[512], *open_paren, *close_paren;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%.20s/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return false;
	text[n] = 0;
	open_paren = strchr(text, '(');
	close_paren = strrchr(text, ')');
	if (!open_paren || !close_paren)
		return false;
	*close_paren = 0;
	*ret = (struct process){.pid = atoi(text)};
	snprintf(ret->comm, sizeof(ret->comm), "%.15s", open_paren + 1);
	return sscanf(close_paren + 1, " %*c %d", &ret->parent) == 1;
}

static void scan(struct processes *processes)
{
	DIR *dir = opendir("/proc");
	struct dirent *entry;

	processes->n = 0;
	while (dir && (entry = readdir(dir))) {
		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		if (processes->n == processes->capacity) {
			size_t capacity = processes->capacity ? 2 * processes->capacity : 256;
			void *list =
				reallocarray(processes->list, capacity, sizeof(*processes->list));

			if (!list)
				break;
			processes->list = list;
			processes->capacity = capacity;
		}
		if (read_stat(entry->d_name, &processes->list[processes->n]))
			processes->n++;
	}
	if (dir)
		closedir(dir);
}

static bool is_below(const struct processes *processes, pid_t parent)
{
	if (parent == getpid())
		return true;
	for (size_t i = 0; i < processes->n; i++)
		if (processes->list[i].pid == parent)
			return processes->list[i].below;
	return false;
}

/* A child may stand before its parent in the list: repeat until nothing new is found. */
static void mark_descendants(struct processes *processes)
{
	for (bool more = true; more;) {
		more = false;
		for (size_t i = 0; i < processes->n; i++) {
			struct process *p = &processes->list[i];

			if (!p->below && is_below(processes, p->parent))
				p->below = more = true;
		}
	}
}

/* Kills the agents among our children, and says who is left. */
static void kill_agents(pid_t spared, bool *ret_agents, bool *ret_others)
{
	struct processes processes = {0};
	pid_t self = getpid();

	*ret_agents = *ret_others = false;
	scan(&processes);
	for (size_t i = 0; i < processes.n; i++) {
		const struct process *p = &processes.list[i];
		bool agent = !strcmp(p->comm, AGENT_COMM);

		if (p->parent != self || p->pid == spared)
			continue;
		if (agent)
			kill(p->pid, SIGKILL);
		if (waitpid(p->pid, NULL, WNOHANG | __WALL) != 0)
			continue;
		*ret_agents |= agent;
		*ret_others |= !agent;
	}
	free(processes.list);
}

/* An agent that has just been born still has its client's name: others are looked at again. */
void children_end_agents(pid_t spared, int patience_ms)
{
	bool agents = true, others = true;

	for (int waited = 0; waited < patience_ms; waited++) {
		kill_agents(spared, &agents, &others);
		if (!agents && (!others || waited >= YOUNG_MS))
			break;
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	}
}

void children_reap(void)
{
	while (waitpid(-1, NULL, WNOHANG | __WALL) > 0)
		;
}

static bool kill_round(void)
{
	struct processes processes = {0};
	bool found = false;

	scan(&processes);
	mark_descendants(&processes);
	for (size_t i = 0; i < processes.n; i++)
		if (processes.list[i].below) {
			found = true;
			kill(processes.list[i].pid, SIGKILL);
		}
	free(processes.list);
	return found;
}

void children_kill_all(pid_t watched, int *ret_status, int patience_ms)
{
	for (int waited = 0; waited < patience_ms && kill_round(); waited += 10) {
		int status;
		pid_t pid;

		while ((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0)
			if (pid == watched)
				*ret_status = status;
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
	}
}
