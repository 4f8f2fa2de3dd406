#include "embedded.h"

#include <errno.h>
#include <limits.h>
#include <fcntl.h>
#include <jansson.h>
#include <libgen.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
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
#include "terminal.h"

#define READY_TIMEOUT 60000 /* milliseconds: a preallocated swap file takes its time */
#define READY_STEP    100
#define END_TIMEOUT   7000  /* milliseconds between SIGTERM and SIGKILL: it ends its tasks first */
#define END_STEP      1000
#define SWAP_DEFAULT  (8ull << 30) /* bytes */

/* The daemon may say it: names relative to our current directory would mislead. */
static char *absolute(const char *path)
{
	char *cwd = path[0] == '/' ? NULL : get_current_dir_name(), *result;

	if (asprintf(&result, "%s%s%s", cwd ? cwd : "", cwd ? "/" : "", path) < 0)
		result = NULL;
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

/* Some file systems have no direct I/O, and a person who names a swap file need not know. */
static bool direct_works(const char *path, bool exists)
{
	char *directory = exists ? NULL : strdup(path);
	int fd;

	if (exists)
		fd = open(path, O_RDWR | O_CLOEXEC | O_DIRECT);
	else
		fd = open(directory ? dirname(directory) : "/",
			  O_TMPFILE | O_RDWR | O_CLOEXEC | O_DIRECT, 0600);
	free(directory);
	if (fd >= 0)
		close(fd);
	return fd >= 0 || errno != EINVAL;
}

static json_t *swap_config(const struct embedded_options *options)
{
	uint64_t size = options->swap_size;
	struct stat st;
	bool exists;
	json_t *swap;
	char *path;

	if (options->swap && !strcmp(options->swap, "none"))
		return json_array();
	path = options->swap ? absolute(options->swap) : default_swap();
	if (!path)
		return NULL;
	exists = stat(path, &st) == 0;
	if (!size && !exists)
		size = options->memory > SWAP_DEFAULT / 2 ? 2 * options->memory : SWAP_DEFAULT;
	size = (size + 4095) & ~4095ull;
	swap = json_pack("{s:s, s:b}", "path", path, "direct", direct_works(path, exists));
	if (size)
		json_object_set_new(swap, "size", json_integer((json_int_t)size));
	free(path);
	return json_pack("[o]", swap);
}

/* Only the size is the option's; the algorithm may be configured. */
static void set_compressed(json_t *config, uint64_t size)
{
	json_t *compressed = json_object_get(config, "compressed");

	if (!compressed)
		json_object_set_new(config, "compressed", compressed = json_object());
	json_object_set_new(compressed, "size", json_integer((json_int_t)((size + 4095) & ~4095ull)));
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

static int anonymous_file(const char *name, const char *content)
{
	int fd = memfd_create(name, MFD_CLOEXEC);
	size_t length = content ? strlen(content) : 0;

	if (fd >= 0 && length && write(fd, content, length) != (ssize_t)length) {
		close(fd);
		return -1;
	}
	if (fd >= 0 && length)
		lseek(fd, 0, SEEK_SET);
	return fd;
}

/* The configuration as a descriptor for the daemon to read: nothing on disk, nothing to remove.
 * Where the daemon lives is its own choice, unless a socket was named. */
static int make_config(const struct embedded_options *options)
{
	json_t *config = load_config(options->config);
	char *text;
	int fd = -1;

	if (!config)
		return -1;
	json_object_del(config, "socket");
	json_object_del(config, "runtime_dir");
	if (options->swap || options->swap_size || !json_object_get(config, "swap"))
		json_object_set_new(config, "swap", swap_config(options));
	if (options->compressed)
		set_compressed(config, options->compressed);
	text = json_dumps(config, JSON_INDENT(4));
	if (text)
		fd = anonymous_file("upager-config", text);
	if (fd < 0)
		say("cannot make the private daemon's configuration: %s", strerror(errno));
	json_decref(config);
	free(text);
	return fd;
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

/* => in the child. */
static _Noreturn void become_daemon(const struct embedded *embedded, const char *program,
				    const char *socket, int config, int channel)
{
	char number[16], *argv[] = {"upagerd", "--config", "-", "--embedded", number,
				    socket ? "--socket" : NULL, (char *)socket, NULL};
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
	if (dup2(config, 0) < 0 || dup2(embedded->log, 1) < 0 || dup2(embedded->log, 2) < 0)
		_exit(EXIT_UPAGER);
	fcntl(channel, F_SETFD, 0);
	snprintf(number, sizeof(number), "%d", channel);
	execv(program, argv);
	dprintf(channel, "{\"error\": \"cannot execute %s: %s\"}\n", program, strerror(errno));
	_exit(EXIT_UPAGER);
}

void embedded_print_log(const struct embedded *embedded)
{
	struct stat st = {0};
	char tail[2048];
	off_t keep = (off_t)sizeof(tail) - 1;
	ssize_t n;

	if (embedded->log < 0 || fstat(embedded->log, &st) < 0)
		return;
	n = pread(embedded->log, tail, sizeof(tail) - 1,
		  st.st_size > keep ? st.st_size - keep : 0);

	while (n > 0 && tail[n - 1] == '\n')
		n--;
	if (n > 0) {
		tail[n] = 0;
		say("the last that the private daemon said:\n%s", tail);
	}
}

/* One line of JSON from the daemon: {"ready": true, "socket": "…"} or {"error": "…"}. */
static int wait_ready(struct embedded *embedded)
{
	struct pollfd poll_fd = {.fd = embedded->channel, .events = POLLIN};
	char line[4096];
	const char *socket;
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
	socket = json_string_value(json_object_get(answer, "socket"));
	if (json_is_true(json_object_get(answer, "ready")) && socket) {
		embedded->socket = strdup(socket);
		r = embedded->socket ? 0 : -1;
	} else if (json_is_string(json_object_get(answer, "error"))) {
		say("the private daemon cannot start: %s",
		    json_string_value(json_object_get(answer, "error")));
	} else {
		say("the private daemon did not say that it is ready");
		embedded_print_log(embedded);
	}
	json_decref(answer);
	return r;
}

static int spawn(struct embedded *embedded, const char *program, const char *socket, int config)
{
	int pair[2];

	embedded->log = anonymous_file("upager-log", NULL);
	if (embedded->log < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		say("cannot make a channel to the private daemon: %s", strerror(errno));
		return -1;
	}
	embedded->pid = fork();
	if (embedded->pid == 0)
		become_daemon(embedded, program, socket, config, pair[1]);
	close(pair[1]);
	embedded->channel = pair[0];
	if (embedded->pid < 0) {
		say("cannot start the private daemon: %s", strerror(errno));
		embedded->pid = 0;
		return -1;
	}
	embedded->pidfd = (int)syscall(SYS_pidfd_open, embedded->pid, 0);
	return wait_ready(embedded);
}

int embedded_start(const struct embedded_options *options, struct embedded *ret)
{
	char *program = place_daemon(), *socket = options->socket ? absolute(options->socket) : NULL;
	int config = program ? make_config(options) : -1, r = -1;

	*ret = EMBEDDED_NONE;
	if (config >= 0) {
		r = spawn(ret, program, socket, config);
		close(config);
	}
	free(program);
	free(socket);
	if (r < 0) {
		embedded_ended(ret, END_STEP); /* it is about to, having said why */
		embedded_end(ret);
	}
	return r;
}

/* A daemon sweeps what dead ones left before it does anything else, and ends when it sees that
 * nobody wants it. */
static void sweep(void)
{
	struct embedded another;

	if (embedded_start(&(struct embedded_options){0}, &another) == 0)
		embedded_end(&another);
}

/* A socket at a path of the user's choice is in no directory that a later daemon would sweep. */
static void remove_socket(const struct embedded *embedded)
{
	static const char *const suffixes[] = {"", SESSION_SUFFIX, ".lock"};
	char path[PATH_MAX];

	for (unsigned i = 0; embedded->socket && i < 3; i++) {
		snprintf(path, sizeof(path), "%s%s", embedded->socket, suffixes[i]);
		unlink(path);
	}
}

void embedded_died(struct embedded *embedded)
{
	embedded_print_log(embedded);
	remove_socket(embedded);
	waitpid(embedded->pid, NULL, 0);
	embedded->pid = 0;
	embedded_end(embedded);
	sweep();
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

void embedded_leave(struct embedded *embedded)
{
	if (embedded->pidfd >= 0)
		close(embedded->pidfd);
	if (embedded->channel >= 0)
		close(embedded->channel);
	if (embedded->log >= 0)
		close(embedded->log);
	free(embedded->socket);
	*embedded = EMBEDDED_NONE;
}

void embedded_end(struct embedded *embedded)
{
	if (!embedded_ended(embedded, 0)) {
		kill(embedded->pid, SIGTERM);
		if (!embedded_ended(embedded, END_TIMEOUT)) {
			kill(embedded->pid, SIGKILL);
			waitpid(embedded->pid, NULL, 0);
			remove_socket(embedded);
		}
	}
	embedded_leave(embedded);
}
