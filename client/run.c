/* `upager run`: a program, and what it starts, under a memory limit. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/size.h"
#include "children.h"
#include "commands.h"
#include "embedded.h"
#include "figures.h"
#include "places.h"
#include "program.h"
#include "proto/session.h"
#include "supervise.h"
#include "terminal.h"
#include "trace.h"
#include "vl_client.h"

#define PATIENCE 2000 /* milliseconds for what should end with the program */
#define STEP     20

struct run {
	/* what was asked for */
	struct embedded_options options;
	const char *name;
	const char *trace; /* file, or NULL */
	bool stats, json;
	char **argv; /* the program's */

	/* what came of it */
	char generated_name[80];
	char *path, *preload, *key;
	struct vl_client daemon;
	struct vl_client tracer; /* where the call for the trace waits */
	struct embedded embedded;
	struct supervised program;
	double seconds;
};

static int parse_size(const char *option, const char *text, uint64_t *ret)
{
	int r = size_parse(text, ret);

	if (r == 0 && *ret > 0)
		return 0;
	return say_failed("%s: \"%s\" is %s; write 256M or 1.5G, for instance", option, text,
			  r == -ERANGE ? "too large" : "no size");
}

static int parse(struct run *run, int argc, char **argv)
{
	static const struct option options[] = {
		{"memory", required_argument, NULL, 'm'},    {"swap", required_argument, NULL, 's'},
		{"swap-size", required_argument, NULL, 'S'},
		{"compressed", required_argument, NULL, 'C'},
		{"name", required_argument, NULL, 'n'},
		{"socket", required_argument, NULL, 'k'},    {"config", required_argument, NULL, 'c'},
		{"trace", required_argument, NULL, 'T'},   {"stats", no_argument, NULL, 't'},
		{"json", no_argument, NULL, 'j'},
		{0}};
	int option, r = 0;

	opterr = 0;
	while (r == 0 && (option = getopt_long(argc, argv, "+:", options, NULL)) != -1)
		switch (option) {
		case 'm':
			r = parse_size("--memory", optarg, &run->options.memory);
			break;
		case 's':
			run->options.swap = optarg;
			break;
		case 'S':
			r = parse_size("--swap-size", optarg, &run->options.swap_size);
			break;
		case 'C':
			r = parse_size("--compressed", optarg, &run->options.compressed);
			break;
		case 'n':
			run->name = optarg;
			break;
		case 'k':
			run->options.socket = optarg;
			break;
		case 'c':
			run->options.config = optarg;
			break;
		case 'T':
			run->trace = optarg;
			break;
		case 't':
			run->stats = true;
			break;
		case 'j':
			run->json = true;
			break;
		default:
			r = say_usage("run", argv, option);
		}
	if (r == 0 && optind == argc)
		return say_failed("run: which program? See `upager run --help`");
	run->argv = argv + optind;
	return r;
}

/* Unique enough, and no trouble in a shell. */
static void generate_name(struct run *run)
{
	const char *slash = strrchr(run->argv[0], '/');

	snprintf(run->generated_name, sizeof(run->generated_name), "%.40s-%d",
		 slash ? slash + 1 : run->argv[0], getpid());
	for (char *c = run->generated_name; *c; c++)
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", *c))
			*c = '_';
	run->name = run->generated_name;
}

static int failed(const struct run *run, const char *what, int result)
{
	char *text = vl_explain(&run->daemon, result);

	say("%s: %s", what, text ? text : "out of memory");
	free(text);
	return EXIT_UPAGER;
}

/* Whether a daemon listens already: 1 yes, 0 no, else the exit status. */
static int connect_shared(struct run *run, bool private_wanted)
{
	const char *socket = run->options.socket;
	struct places places;
	int r = -ENOENT;

	if (socket) {
		r = vl_open(&run->daemon, socket);
		if (r == 0 && private_wanted)
			return say_failed("a daemon listens on %s already: --swap, --swap-size, "
					  "--compressed and --config are for a private one",
					  socket);
		if (r < 0 && r != -ENOENT && r != -ECONNREFUSED)
			return failed(run, "run", r);
	} else if (!private_wanted) {
		places_sockets(&places, false);
		for (size_t i = 0; r < 0 && i < places.n; i++) {
			vl_close(&run->daemon);
			r = vl_open(&run->daemon, places.path[i]);
		}
		places_done(&places);
	}
	return r == 0;
}

static int connect_daemon(struct run *run)
{
	const struct embedded_options *o = &run->options;
	int r = connect_shared(run, o->config || o->swap || o->swap_size || o->compressed);

	if (r != 0)
		return r == 1 ? 0 : r;
	vl_close(&run->daemon);
	if (embedded_start(o, &run->embedded) < 0)
		return EXIT_UPAGER;
	r = vl_open(&run->daemon, run->embedded.socket);
	return r < 0 ? failed(run, "the private daemon", r) : 0;
}

static int create_group(struct run *run)
{
	json_t *reply = NULL;
	const char *key;
	int r = vl_call(&run->daemon, "Create",
			json_pack("{s:s, s:I}", "name", run->name, "limit",
				  (json_int_t)run->options.memory),
			&reply);

	if (r != 0)
		return failed(run, "cannot make the group", r);
	key = json_string_value(json_object_get(reply, "key"));
	run->key = key ? strdup(key) : NULL;
	json_decref(reply);
	return run->key ? 0 : failed(run, "cannot make the group", -EPROTO);
}

/* From before the program's first page on. The file is the caller's own: the daemon takes its descriptor. */
static int begin_trace(struct run *run)
{
	json_t *reply = NULL;
	char *text;
	int fd = trace_create(run->trace), r;

	if (fd < 0)
		return say_failed("run: %s: %s", run->trace, strerror(-fd));
	r = vl_open(&run->tracer, run->daemon.path);
	if (r == 0)
		r = vl_send(&run->tracer, "Trace",
			    json_pack("{s:s, s:i}", "group", run->name, "fd", fd), true);
	if (r == 0)
		r = vl_next(&run->tracer, &reply, NULL);
	json_decref(reply);
	close(fd);
	if (r == 0)
		return 0;
	text = vl_explain(&run->tracer, r);
	say("cannot trace to %s: %s", run->trace, text ? text : "out of memory");
	free(text);
	unlink(run->trace);
	return EXIT_UPAGER;
}

/* => the group is still there. What the program has done is its own business, whatever comes of this. */
static void end_trace(struct run *run)
{
	json_t *reply = NULL, *answer = NULL;
	char *text;
	int r = vl_call(&run->daemon, "EndTrace", json_pack("{s:s}", "group", run->name), &reply);

	if (r >= 0) /* refused: it has ended by itself, and the answer waits */
		r = vl_next(&run->tracer, &answer, NULL);
	if (r == 0) {
		trace_say_dropped(answer);
	} else {
		text = vl_explain(&run->tracer, r);
		say("trace: %s: %s; what is in it up to then can be read", run->trace,
		    text ? text : "out of memory");
		free(text);
	}
	json_decref(reply);
	json_decref(answer);
}

/* The program's environment is ours, with three variables changed. */
static int set_environment(const struct run *run)
{
	const char *preload = getenv("LD_PRELOAD");
	size_t length = strlen(run->preload);
	char *value = NULL;
	int r;

	if (!preload || !*preload)
		r = setenv("LD_PRELOAD", run->preload, 1);
	else if (!strncmp(preload, run->preload, length) && strchr(" :", preload[length]))
		r = 0; /* a run within a run */
	else if (asprintf(&value, "%s:%s", run->preload, preload) < 0)
		return -1;
	else
		r = setenv("LD_PRELOAD", value, 1);
	free(value);
	if (r == 0)
		r = setenv(SESSION_ENV_SOCKET, run->daemon.path, 1);
	return r < 0 ? r : setenv(SESSION_ENV_GROUP, run->key, 1);
}

static json_t *describe(struct run *run)
{
	json_t *reply = NULL;

	if (vl_call(&run->daemon, "Describe", json_pack("{s:s}", "group", run->name), &reply) != 0)
		return NULL;
	return reply;
}

/* The tiers of the daemon, or NULL. */
static json_t *describe_tiers(struct run *run)
{
	json_t *reply = NULL, *tiers = NULL;

	if (vl_call(&run->daemon, "Tiers", NULL, &reply) == 0)
		tiers = json_incref(json_object_get(reply, "tiers"));
	json_decref(reply);
	return tiers;
}

/* When the program has ended the daemon still has to let go of what it held, which takes a moment. What it
 * left running in the background is not waited for. */
static json_t *describe_end(struct run *run)
{
	const struct timespec pause = {.tv_nsec = 5000000};
	json_t *reply = describe(run);

	for (unsigned i = 0; i < 200 && json_integer_value(json_object_get(
					       json_object_get(reply, "group"), "tasks")) > 0; i++) {
		nanosleep(&pause, NULL);
		json_decref(reply);
		reply = describe(run);
	}
	return reply;
}

static void print_stats(struct run *run)
{
	json_t *reply = describe_end(run), *group = json_object_get(reply, "group");
	json_t *tiers = describe_tiers(run);
	int status = run->program.status;
	bool exited = WIFEXITED(status);

	if (!group)
		say("the daemon has no figures of the run any more");
	else if (run->json) {
		json_t *out = json_pack(
			"{s:O, s:O?, s:o, s:o, s:f}", "group", group, "tiers", tiers, "status",
			exited ? json_integer(WEXITSTATUS(status)) : json_null(), "signal",
			exited ? json_null() : json_integer(WTERMSIG(status)), "seconds",
			run->seconds);

		json_dumpf(out, stderr, JSON_COMPACT);
		fputc('\n', stderr);
		json_decref(out);
	} else {
		figures_print_run(group, run->seconds, stderr);
		figures_print_compressed(tiers, stderr);
		embedded_print_log(&run->embedded);
	}
	json_decref(tiers);
	json_decref(reply);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int run_program(struct run *run)
{
	double start = now();
	int error;

	if (set_environment(run) < 0)
		return say_failed("cannot set the environment: %s", strerror(errno));
	run->program = (struct supervised){.path = run->path, .argv = run->argv, .env = environ,
					   .control = run->daemon.fd,
					   .daemon = run->embedded.pidfd,
					   .daemon_pid = run->embedded.pid};
	error = supervise_run(&run->program);
	run->seconds = now() - start;
	if (!error)
		return 0;
	say("%s: cannot be executed: %s", run->path, strerror(error));
	return error == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
}

/* Whether something of the group lives on: tasks of processes that exist, or (unknown to be a
 * task, such as a static program) whatever keeps the group. */
static bool outlived(struct run *run, bool ask_processes)
{
	json_t *reply = describe(run), *task;
	bool alive = !ask_processes && reply;
	size_t i;

	json_array_foreach(json_object_get(reply, "tasks"), i, task) {
		pid_t pid = (pid_t)figure(task, "pid");

		alive |= pid > 0 && (kill(pid, 0) == 0 || errno == EPERM);
	}
	json_decref(reply);
	return alive;
}

static void end_embedded(struct run *run)
{
	bool alive = false;

	for (int waited = 0; !alive && waited < PATIENCE; waited += STEP) {
		if (embedded_ended(&run->embedded, STEP))
			break;
		children_reap();
		alive = outlived(run, true);
	}
	if (run->embedded.pid && (alive || outlived(run, false)))
		embedded_leave(&run->embedded);
	else
		embedded_end(&run->embedded);
}

static int finish(struct run *run)
{
	json_t *reply = NULL;

	if (run->program.lost_daemon) {
		say("the private daemon of %s died; the program could not go on without the pages "
		    "it held and was killed",
		    run->name);
		embedded_died(&run->embedded);
		return EXIT_UPAGER;
	}
	children_end_agents(run->embedded.pid, PATIENCE); /* they keep the executable busy */
	if (run->program.lost_control)
		say("the daemon on %s went away while %s ran", run->daemon.path, run->name);
	else if (run->trace)
		end_trace(run);
	if (!run->program.lost_control && (run->stats || run->json))
		print_stats(run);
	if (vl_call(&run->daemon, "Release", json_pack("{s:s}", "name", run->name), &reply) == 0)
		json_decref(reply);
	if (run->embedded.pid)
		end_embedded(run);
	return 0;
}

static int run_all(struct run *run)
{
	int status = program_find(run->argv[0], &run->path);

	if (status)
		return status;
	run->preload = place_preload();
	if (!run->preload)
		return EXIT_UPAGER;
	if (supervise_prepare() < 0)
		return say_failed("cannot watch signals: %s", strerror(errno));
	status = connect_daemon(run);
	if (status == 0)
		status = create_group(run);
	if (status == 0 && run->trace)
		status = begin_trace(run);
	if (status == 0 && supervise_interrupted())
		status = EXIT_UPAGER;
	if (status == 0)
		status = run_program(run);
	if (status == 0)
		status = finish(run);
	return status;
}

int command_run(int argc, char **argv)
{
	struct run run = {.daemon.fd = -1, .tracer.fd = -1, .embedded = EMBEDDED_NONE};
	int status = parse(&run, argc, argv), interrupted;

	if (status)
		return status;
	if (!run.options.memory)
		run.options.memory = (uint64_t)sysconf(_SC_PHYS_PAGES) *
				     (uint64_t)sysconf(_SC_PAGESIZE);
	if (!run.name)
		generate_name(&run);
	status = run_all(&run);
	interrupted = status && !run.program.pid ? supervise_interrupted() : 0;
	vl_close(&run.tracer);
	vl_close(&run.daemon);
	embedded_end(&run.embedded);
	free(run.path);
	free(run.preload);
	free(run.key);
	if (interrupted)
		supervise_exit_like(interrupted); /* as a wait status: ended by that signal */
	if (status == 0)
		supervise_exit_like(run.program.status);
	return status;
}
