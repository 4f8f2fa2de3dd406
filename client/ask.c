#include "ask.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "figures.h"
#include "places.h"
#include "terminal.h"
#include "vl_client.h"

#define ENDING_MAX 75 /* looks at a call that should end: 15 s */

static bool is(const struct ask *ask, const char *command)
{
	return !strcmp(ask->command, command);
}

/* Not every command takes every option. */
static int check_command(const struct ask *ask, int option)
{
	if (strchr("wi", option) && !is(ask, "stat"))
		return say_failed("%s: only `upager stat` takes --watch and --interval",
				  ask->command);
	if (option == 'o' && !is(ask, "snapshot") && !is(ask, "trace"))
		return say_failed("%s: only `upager snapshot` and `upager trace` take --output",
				  ask->command);
	if (strchr("sc", option) && !is(ask, "trace"))
		return say_failed("%s: only `upager trace` takes --seconds and --convert",
				  ask->command);
	return 0;
}

static int parse_seconds(const struct ask *ask, const char *option, const char *text, double *ret)
{
	char *end;

	*ret = strtod(text, &end);
	if (!*end && *ret >= 0.01 && *ret <= 86400)
		return 0;
	return say_failed("%s: %s \"%s\" is no number of seconds from 0.01 to 86400", ask->command,
			  option, text);
}

static int take_option(struct ask *ask, int option)
{
	int r = check_command(ask, option);

	ask->json |= option == 'j';
	ask->watch |= option == 'w' || option == 'i';
	if (option == 'o')
		ask->output = optarg;
	if (option == 'k')
		ask->socket = optarg;
	if (option == 'c')
		ask->convert = optarg;
	if (r == 0 && option == 'i')
		r = parse_seconds(ask, "--interval", optarg, &ask->interval);
	if (r == 0 && option == 's')
		r = parse_seconds(ask, "--seconds", optarg, &ask->seconds);
	return r;
}

int ask_parse(struct ask *ask, int argc, char **argv, int min_words, int max_words)
{
	static const struct option options[] = {{"json", no_argument, NULL, 'j'},
						{"socket", required_argument, NULL, 'k'},
						{"watch", no_argument, NULL, 'w'},
						{"interval", required_argument, NULL, 'i'},
						{"output", required_argument, NULL, 'o'},
						{"seconds", required_argument, NULL, 's'},
						{"convert", required_argument, NULL, 'c'},
						{0}};
	int option, r = 0;

	*ask = (struct ask){.command = argv[0], .interval = 1};
	opterr = 0;
	while (r == 0 && (option = getopt_long(argc, argv, ":o:", options, NULL)) != -1)
		r = option == ':' || option == '?' ? say_usage(argv[0], argv, option)
						   : take_option(ask, option);
	if (r != 0)
		return r;
	ask->words = argv + optind;
	ask->n_words = argc - optind;
	if (ask->n_words < min_words)
		return say_failed("%s: something is missing; see `upager %s --help`", argv[0],
				  argv[0]);
	if (ask->n_words > max_words)
		return say_failed("%s: \"%s\" is too much; see `upager %s --help`", argv[0],
				  ask->words[max_words], argv[0]);
	return 0;
}

static int failed(const struct ask *ask, const struct vl_client *client, int result)
{
	char *text = vl_explain(client, result);

	say("%s: %s", ask->command, text ? text : "out of memory");
	free(text);
	return EXIT_UPAGER;
}

/* What is asked of each daemon, with vl_call's results. */
struct question {
	int (*put)(struct vl_client *client, struct question *question);
	json_t *groups, *tasks, *tiers, *group;
	const char *target;
	json_int_t limit, pid;
	void (*progress)(int fd, int64_t size);
	bool (*enough)(void);
	int fd;
	int64_t size;
	struct vl_client *client; /* that waits */
	unsigned ending;          /* how often it has waited since the trace was ended */
	bool done;
	bool reached; /* a daemon listens */
	bool tag;     /* say which socket an answer came from */
};

static void collect(const struct question *question, const struct vl_client *client, json_t *into,
		    json_t *from)
{
	json_t *object;
	size_t i;

	json_array_foreach(from, i, object) {
		if (question->tag)
			json_object_set_new(object, "socket", json_string(client->path));
		json_array_append(into, object);
	}
}

static bool nobody(int result)
{
	return result == -ENOENT || result == -ECONNREFUSED;
}

/* Nobody home is an answer if the socket was not named; what happens midway is told. */
static int ask_one(const struct ask *ask, const char *path, struct question *question)
{
	struct vl_client client;
	int r = vl_open(&client, path), status = 0;

	if (r == 0) {
		question->reached = true;
		r = question->put(&client, question);
		if (r == -ECONNRESET && ask->seen)
			question->reached = false;
		else if (r != 0)
			status = failed(ask, &client, r);
	} else if (ask->socket ? !(nobody(r) && ask->seen) : !(nobody(r) || r == -EACCES)) {
		status = failed(ask, &client, r);
	}
	vl_close(&client);
	return status;
}

static int ask_each(const struct ask *ask, struct question *question)
{
	struct places places;
	int status = 0;

	if (ask->socket)
		return ask_one(ask, ask->socket, question);
	question->tag = true;
	places_sockets(&places, true);
	for (size_t i = 0; status == 0 && !question->done && i < places.n; i++)
		status = ask_one(ask, places.path[i], question);
	if (status == 0 && !question->reached && !ask->seen)
		status = say_failed("%s: no daemon listens on %s, and no run of yours has a "
				    "private one: start one with `systemctl start upagerd` or "
				    "`upager run`",
				    ask->command, places.path[0]);
	places_done(&places);
	return status;
}

static int describe(struct vl_client *client, struct question *question, json_t *parameters)
{
	json_t *reply = NULL, *groups;
	int r = vl_call(client, "Describe", parameters, &reply);

	if (r != 0)
		return r;
	groups = json_pack("[O]", json_object_get(reply, "group"));
	collect(question, client, question->groups, groups);
	collect(question, client, question->tasks, json_object_get(reply, "tasks"));
	json_decref(groups);
	json_decref(reply);
	return 0;
}

static int put_all(struct vl_client *client, struct question *question)
{
	json_t *reply = NULL, *group;
	size_t i;
	int r = vl_call(client, "List", NULL, &reply);

	if (r != 0)
		return r;
	json_array_foreach(json_object_get(reply, "groups"), i, group) {
		r = describe(client, question,
			     json_pack("{s:O}", "group", json_object_get(group, "name")));
		if (r == VL_REFUSED && vl_error_is(client, "NoSuchGroup"))
			r = 0; /* it has just ended */
		if (r != 0)
			break;
	}
	json_decref(reply);
	return r;
}

/* A daemon that does not know the target is no error: another one may. */
static int settle(const struct vl_client *client, struct question *question, int result)
{
	if (result == 0)
		question->done = true;
	else if (result == VL_REFUSED &&
		 (vl_error_is(client, "NoSuchGroup") || vl_error_is(client, "NoSuchTask")))
		result = 0;
	return result;
}

static json_int_t as_pid(const char *text)
{
	char *end;
	long pid = strtol(text, &end, 10);

	return isdigit((unsigned char)*text) && !*end ? pid : 0;
}

static int put_target(struct vl_client *client, struct question *question)
{
	json_int_t pid = as_pid(question->target);
	int r = 0;

	if (pid) {
		r = settle(client, question,
			   describe(client, question, json_pack("{s:I}", "pid", pid)));
		if (r != 0 || question->done)
			return r;
	}
	return settle(client, question,
		      describe(client, question, json_pack("{s:s}", "group", question->target)));
}

static int put_tiers(struct vl_client *client, struct question *question)
{
	json_t *reply = NULL;
	int r = vl_call(client, "Tiers", NULL, &reply);

	if (r == 0)
		collect(question, client, question->tiers, json_object_get(reply, "tiers"));
	json_decref(reply);
	return r;
}

static int put_limit(struct vl_client *client, struct question *question)
{
	json_t *reply = NULL;
	int r = vl_call(client, "SetLimit",
			json_pack("{s:s, s:I}", "group", question->target, "limit",
				  question->limit),
			&reply);

	if (r == 0)
		question->group = json_incref(json_object_get(reply, "group"));
	json_decref(reply);
	return settle(client, question, r);
}

/* => the question's groups and tasks are gone. */
static json_t *answer(struct question *question)
{
	json_t *all = json_pack("{s:o, s:o}", "groups", question->groups, "tasks",
				question->tasks);

	if (question->reached)
		return all;
	json_decref(all);
	return NULL;
}

int ask_all(const struct ask *ask, json_t **ret)
{
	struct question question = {
		.put = put_all, .groups = json_array(), .tasks = json_array()};
	int status = ask_each(ask, &question);

	*ret = answer(&question);
	return status;
}

static int unknown(const struct ask *ask, const char *target)
{
	return say_failed("%s: there is no group%s %s here; `upager ps` lists them", ask->command,
			  as_pid(target) ? " or task" : "", target);
}

/* Of a task, its group and itself; not its siblings. */
static void keep_task(json_t *tasks, json_int_t pid)
{
	for (size_t i = json_array_size(tasks); pid && i-- > 0;) {
		json_t *task = json_array_get(tasks, i);

		if (json_integer_value(json_object_get(task, "pid")) != pid)
			json_array_remove(tasks, i);
	}
}

int ask_target(const struct ask *ask, const char *target, json_t **ret)
{
	struct question question = {.put = put_target,
				    .groups = json_array(),
				    .tasks = json_array(),
				    .target = target};
	int status = ask_each(ask, &question);
	const char *group =
		json_string_value(json_object_get(json_array_get(question.groups, 0), "name"));

	if (status == 0 && !question.done && !ask->seen)
		status = unknown(ask, target);
	if (!question.done)
		question.reached = false;
	if (group && strcmp(group, target))
		keep_task(question.tasks, as_pid(target));
	*ret = answer(&question);
	return status;
}

int ask_tiers(const struct ask *ask, json_t **ret)
{
	struct question question = {.put = put_tiers, .tiers = json_array()};
	int status = ask_each(ask, &question);

	*ret = json_pack("{s:o}", "tiers", question.tiers);
	return status;
}

static void on_waiting(void *context)
{
	const struct question *question = context;

	question->progress(question->fd, question->size);
}

static int put_snapshot(struct vl_client *client, struct question *question)
{
	json_t *reply = NULL, *task;
	size_t i;
	int r = vl_call(client, "Describe", json_pack("{s:I}", "pid", question->pid), &reply);

	if (r != 0)
		return settle(client, question, r);
	json_array_foreach(json_object_get(reply, "tasks"), i, task)
		if (figure(task, "pid") == question->pid)
			question->size = figure(task, "resident") + figure(task, "evicted");
	json_decref(reply);
	reply = NULL;
	client->patience_s = 24 * 3600; /* as long as the disk takes */
	client->waiting = on_waiting;
	client->context = question;
	r = vl_call(client, "Snapshot",
		    json_pack("{s:I, s:i}", "pid", question->pid, "fd", question->fd), &reply);
	client->waiting = NULL;
	client->patience_s = 0;
	if (r == 0)
		question->group = reply;
	return settle(client, question, r);
}

int ask_snapshot(const struct ask *ask, json_int_t pid, int fd,
		 void (*progress)(int fd, int64_t size), json_t **ret)
{
	struct question question = {
		.put = put_snapshot, .pid = pid, .fd = fd, .progress = progress};
	int status = ask_each(ask, &question);

	if (status == 0 && !question.done)
		status = say_failed("%s: process %lld is no task here; `upager ps` lists them",
				    ask->command, (long long)pid);
	*ret = question.group;
	return status;
}

/* The call for the trace still waits on its connection: the one that ends it takes another. */
static void end_trace(struct question *question)
{
	struct vl_client other;
	json_t *reply = NULL;

	if (vl_open(&other, question->client->path) == 0 &&
	    vl_call(&other, "EndTrace", json_pack("{s:s}", "group", question->target), &reply) == 0)
		json_decref(reply);
	vl_close(&other);
}

static void on_tracing(void *context)
{
	struct question *question = context;

	question->progress(question->fd, 0);
	if (!question->ending && !question->enough())
		return;
	if (!question->ending++)
		end_trace(question);
	else if (question->ending > ENDING_MAX)
		shutdown(question->client->fd, SHUT_RDWR);
}

static int put_trace(struct vl_client *client, struct question *question)
{
	json_t *reply = NULL;
	bool more = false;
	int r = vl_send(client, "Trace",
			json_pack("{s:s, s:i}", "group", question->target, "fd", question->fd),
			true);

	if (r == 0)
		r = vl_next(client, &reply, &more);
	if (settle(client, question, r) != 0 || !question->done)
		return settle(client, question, r);
	client->patience_s = 10 * 365 * 24 * 3600u; /* as long as it goes on */
	client->waiting = on_tracing;
	client->context = question;
	question->client = client;
	while (r == 0 && more) {
		json_decref(reply);
		reply = NULL;
		r = vl_next(client, &reply, &more);
	}
	client->waiting = NULL;
	client->patience_s = 0;
	question->group = reply;
	return r;
}

int ask_trace(const struct ask *ask, const char *group, int fd, void (*progress)(int fd, int64_t size),
	      bool (*enough)(void), bool *ret_begun, json_t **ret)
{
	struct question question = {
		.put = put_trace, .target = group, .fd = fd, .progress = progress, .enough = enough};
	int status = ask_each(ask, &question);

	if (status == 0 && !question.done)
		status = unknown(ask, group);
	*ret_begun = question.done;
	*ret = question.group;
	return status;
}

int ask_limit(const struct ask *ask, const char *group, json_int_t limit, json_t **ret)
{
	struct question question = {.put = put_limit, .target = group, .limit = limit};
	int status = ask_each(ask, &question);

	if (status == 0 && !question.done)
		status = unknown(ask, group);
	*ret = status == 0 ? json_pack("{s:o}", "group", question.group) : NULL;
	return status;
}
