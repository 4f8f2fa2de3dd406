#include "embedded.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "places.h"
#include "proto/session.h"
#include "supervise.h"
#include "sweep.h"
#include "terminal.h"

#define READY_TIMEOUT 60000 /* milliseconds: a preallocated swap file takes its time */
#define READY_STEP    100
#define END_TIMEOUT   2000  /* milliseconds between SIGTERM and SIGKILL */
#define SWAP_DEFAULT  (8ull << 30)
#define LOG           "upagerd.log"
#define CONFIG        "config.json"

static char *join(const char *dir, const char *name)
{
	char *path;

	if (asprintf(&path, "%s/%s", dir, name) < 0) {
		say("out of memory");
		exit(EXIT_UPAGER);
	}
	return path;
}

/* The daemon may run elsewhere and print it: names without the current directory mislead. */
static char *absolute(const char *path)
{
	char *cwd, *result;

	if (path[0] == '/')
		return join("", path + 1);
	cwd = get_current_dir_name();
	result = join(cwd ? cwd : ".", path);
	free(cwd);
	return result;
}

/* Nobody can foresee the name, so nobody can have put a file of his own there. */
static char *default_swap(void)
{
	uint64_t random = 0;
	char *path;

	if (getrandom(&random, sizeof(random), 0) != sizeof(random) ||
	    asprintf(&path, "/var/tmp/upager-%016llx.swap", (unsigned long long)random) < 0)
		return NULL;
	return path;
}

/* => *ret_created is the path if the daemon will make the file (and remove it), else NULL. */
static json_t *swap_config(const struct embedded_options *options, char **ret_created)
{
	char *path = options->swap ? absolute(options->swap) : default_swap();
	uint64_t size = options->swap_size;
	struct stat st;
	bool exists;
	json_t *swap;

	if (!path)
		return NULL;
	exists = stat(path, &st) == 0;
	swap = json_pack("{s:s}", "path", path);
	if (!size && !exists)
		size = options->memory > SWAP_DEFAULT / 2 ? 2 * options->memory : SWAP_DEFAULT;
	size = (size + 4095) & ~4095ull;
	if (size)
		json_object_set_new(swap, "size", json_integer((json_int_t)size));
	*ret_created = exists ? NULL : path;
	if (exists)
		free(path);
	return json_pack("[o]", swap);
}

static json_t *load_config(const char *path)
{
	json_error_t error;
	json_t *config;

	if (!path)
		return json_object();
	config = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
	if (config && json_is_object(config))
		return config;
	if (config)
		say("the configuration %s is not a JSON object", path);
	else if (error.line > 0)
		say("the configuration %s, line %d, column %d: %s", path, error.line, error.column,
		    error.text);
	else
		say("the configuration %s: %s", path, error.text);
	json_decref(config);
	return NULL;
}

static int write_config(const struct embedded_options *options, const struct embedded *embedded,
			char **ret_created)
{
	json_t *config = load_config(options->config), *swap;
	char *path = join(embedded->dir, CONFIG);
	int r = -1;

	*ret_created = NULL;
	if (!config)
		goto out;
	json_object_set_new(config, "socket", json_string(embedded->socket));
	json_object_set_new(config, "runtime_dir", json_string(embedded->dir));
	if (options->swap || options->swap_size || !json_object_get(config, "swap")) {
		swap = swap_config(options, ret_created);
		json_object_set_new(config, "swap", swap);
	}
	r = json_dump_file(config, path, JSON_INDENT(4));
	if (r < 0)
		say("cannot write %s: %s", path, strerror(errno));
out:
	json_decref(config);
	free(path);
	return r;
}

/* A daemon's limits are not the program's: it may need what `ulimit` takes away. */
static void raise_limits(void)
{
	static const __rlimit_resource_t limits[] = {RLIMIT_NOFILE, RLIMIT_FSIZE, RLIMIT_MEMLOCK};
	struct rlimit limit;

	for (unsigned i = 0; i < sizeof(limits) / sizeof(*limits); i++)
		if (getrlimit(limits[i], &limit) == 0) {
			limit.rlim_cur = limit.rlim_max;
			setrlimit(limits[i], &limit);
		}
}

/* => in the child; the descriptors `channel` and `lock` go to the daemon. */
static void become_daemon(const struct embedded *embedded, const char *program, int channel)
{
	char *config = join(embedded->dir, CONFIG), *log = join(embedded->dir, LOG), number[16];
	int null = open("/dev/null", O_RDWR), out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	sigset_t none;

	setsid();
	for (int s = 1; s < NSIG; s++)
		signal(s, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	raise_limits();
	unsetenv("LD_PRELOAD");
	unsetenv(SESSION_ENV_SOCKET);
	unsetenv(SESSION_ENV_GROUP);
	if (null < 0 || out < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
		_exit(EXIT_UPAGER);
	close(null);
	close(out);
	fcntl(channel, F_SETFD, 0);
	fcntl(embedded->lock, F_SETFD, 0);
	snprintf(number, sizeof(number), "%d", channel);
	execl(program, "upagerd", "--config", config, "--socket", embedded->socket, "--embedded",
	      number, NULL);
	dprintf(channel, "{\"error\": \"cannot execute %s: %s\"}\n", program, strerror(errno));
	_exit(EXIT_UPAGER);
}

static void print_log(const struct embedded *embedded)
{
	char *path = join(embedded->dir, LOG), tail[2048];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = -1;

	if (fd >= 0) {
		off_t end = lseek(fd, 0, SEEK_END), keep = (off_t)sizeof(tail) - 1;

		n = pread(fd, tail, sizeof(tail) - 1, end > keep ? end - keep : 0);
		close(fd);
	}
	while (n > 0 && tail[n - 1] == '\n')
		n--;
	if (n > 0) {
		tail[n] = 0;
		say("the last of its log:\n%s", tail);
	}
	free(path);
}

/* One line of JSON from the daemon: {"ready": true} or {"error": "…"}. */
static int wait_ready(struct embedded *embedded)
{
	struct pollfd poll_fd = {.fd = embedded->channel, .events = POLLIN};
	char line[4096];
	size_t length = 0;
	json_t *answer;
	int r = -1;

	for (int waited = 0; waited < READY_TIMEOUT && !memchr(line, '\n', length);) {
		ssize_t n;

		if (poll(&poll_fd, 1, READY_STEP) == 0) {
			if (supervise_interrupted())
				return -1;
			waited += READY_STEP;
			continue;
		}
		n = read(embedded->channel, line + length, sizeof(line) - length);
		if (n <= 0)
			break;
		length += (size_t)n;
	}
	answer = json_loadb(line, length, JSON_DISABLE_EOF_CHECK, NULL);
	if (json_is_true(json_object_get(answer, "ready"))) {
		r = 0;
	} else if (json_is_string(json_object_get(answer, "error"))) {
		say("the private daemon cannot start: %s",
		    json_string_value(json_object_get(answer, "error")));
	} else {
		say("the private daemon did not say that it is ready");
		print_log(embedded);
	}
	json_decref(answer);
	return r;
}

static int spawn(struct embedded *embedded)
{
	char *program = place_daemon();
	int pair[2];

	if (!program)
		return -1;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		say("cannot make a socket for the private daemon: %s", strerror(errno));
		free(program);
		return -1;
	}
	embedded->pid = fork();
	if (embedded->pid == 0)
		become_daemon(embedded, program, pair[1]);
	close(pair[1]);
	free(program);
	embedded->channel = pair[0];
	if (embedded->pid < 0) {
		say("cannot start the private daemon: %s", strerror(errno));
		embedded->pid = 0;
		return -1;
	}
	embedded->pidfd = (int)syscall(SYS_pidfd_open, embedded->pid, 0);
	return wait_ready(embedded);
}

/* The directory's own entry for a socket that stands elsewhere, so that `upager ps` finds it. */
static void link_socket(const struct embedded *embedded)
{
	char *link = join(embedded->dir, PLACE_SOCKET_NAME);

	if (strcmp(link, embedded->socket) && symlink(embedded->socket, link) < 0)
		say("cannot make the link %s: %s; `upager ps` will need --socket", link,
		    strerror(errno));
	free(link);
}

int embedded_start(const struct embedded_options *options, struct embedded *ret)
{
	char *created = NULL;
	int r;

	*ret = (struct embedded){.pidfd = -1, .channel = -1, .lock = -1};
	run_directories_sweep();
	if (run_directory_make(&ret->dir, &ret->lock) < 0)
		return -1;
	ret->socket = options->socket ? absolute(options->socket)
				      : join(ret->dir, PLACE_SOCKET_NAME);
	r = write_config(options, ret, &created);
	if (r == 0)
		r = spawn(ret);
	if (r == 0) {
		link_socket(ret);
		run_directory_note(ret->dir, created, options->socket ? ret->socket : NULL);
	} else {
		embedded_end(ret);
	}
	free(created);
	return r;
}

static void forget(struct embedded *embedded)
{
	if (embedded->pidfd >= 0)
		close(embedded->pidfd);
	if (embedded->channel >= 0)
		close(embedded->channel);
	if (embedded->lock >= 0)
		close(embedded->lock);
	free(embedded->dir);
	free(embedded->socket);
	*embedded = (struct embedded){.pidfd = -1, .channel = -1, .lock = -1};
}

void embedded_died(struct embedded *embedded)
{
	print_log(embedded);
	waitpid(embedded->pid, NULL, 0);
	embedded->pid = 0;
	embedded_end(embedded);
}

bool embedded_ended(struct embedded *embedded, int patience_ms)
{
	struct pollfd poll_fd = {.fd = embedded->pidfd, .events = POLLIN};

	if (!embedded->pid)
		return true;
	if (poll(&poll_fd, 1, patience_ms) <= 0)
		return false;
	waitpid(embedded->pid, NULL, 0);
	embedded->pid = 0;
	return true;
}

void embedded_end(struct embedded *embedded)
{
	if (embedded->pid) {
		kill(embedded->pid, SIGTERM);
		if (!embedded_ended(embedded, END_TIMEOUT)) {
			kill(embedded->pid, SIGKILL);
			waitpid(embedded->pid, NULL, 0);
		}
	}
	if (embedded->dir)
		run_directory_remove(embedded->dir);
	forget(embedded);
}

void embedded_leave(struct embedded *embedded)
{
	forget(embedded);
}
