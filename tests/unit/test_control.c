#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "control.h"
#include "fake_pager.h"
#include "log.h"
#include "monitor.h"
#include "notices.h"
#include "registry.h"
#include "snapshots.h"
#include "sys/pidfd.h"
#include "varlink.h"

static struct pager *pager;
static struct registry registry;
static struct monitors monitors;
static struct snapshots snapshots;
static struct notices notices;
static struct control control;
static uv_loop_t loop;

/* One connection. */
struct peer {
	struct caller caller;
	struct varlink link;
	char sent[65536];
	size_t size;
	json_t *last; /* the last reply */
	unsigned n;
};
static struct peer user, stranger, root;

static void on_send(struct varlink *link, const char *message, size_t size)
{
	struct peer *peer = (struct peer *)((char *)link - offsetof(struct peer, link));

	json_decref(peer->last);
	peer->last = json_loadb(message, size - 1, 0, NULL);
	cr_assert(peer->last);
	peer->n++;
}

static void peer_init(struct peer *peer, uid_t uid)
{
	peer->caller = (struct caller){&control, uid, 4711, pidfd_open_pid(getpid())};
	varlink_init(&peer->link, &control_service, on_send, &peer->caller);
}

static void peer_done(struct peer *peer)
{
	varlink_done(&peer->link);
	control_caller_gone(&peer->caller);
	close(peer->caller.pidfd);
	json_decref(peer->last);
	peer->last = NULL;
}

static void on_group_ended(struct group *group, void *context)
{
	(void)context;
	monitors_group_ended(&monitors, group);
}

static void setup(void)
{
	struct pager_config config = {.swaps = &(struct pager_swap){.path = "/tmp", .size = 4096},
				      .n_swaps = 1};

	log_init(true);
	uv_loop_init(&loop);
	cr_assert_eq(pager_new(&config, &pager, NULL), 0);
	registry_init(&registry, pager);
	registry.group_ended = on_group_ended;
	monitors_init(&monitors, &loop, &registry);
	snapshots_init(&snapshots, pager);
	notices = (struct notices){pager, &registry, &monitors, &snapshots};
	control = (struct control){pager, &registry, &monitors, &snapshots};
	peer_init(&user, 1000);
	peer_init(&stranger, 1001);
	peer_init(&root, 0);
}

static void teardown(void)
{
	peer_done(&user);
	peer_done(&stranger);
	peer_done(&root);
	uv_run(&loop, UV_RUN_DEFAULT);
	cr_expect_eq(uv_loop_close(&loop), 0);
	registry_done(&registry);
	cr_expect_eq(fake_pager_n_groups(), 0);
	pager_free(pager);
}

TestSuite(control, .init = setup, .fini = teardown);

/* The reply's parameters (borrowed); *ret_error is the error's last word, or "". */
static json_t *call(struct peer *peer, const char *method, const char *parameters, char *ret_error)
{
	char message[512];
	const char *error;

	snprintf(message, sizeof(message), "{\"method\":\"io.upager.Pager.%s\",\"parameters\":%s}",
		 method, parameters);
	peer->n = 0;
	cr_assert_eq(varlink_feed(&peer->link, message, strlen(message) + 1), 0);
	cr_assert_eq(peer->n, 1, "%s: %u replies", message, peer->n);
	error = json_string_value(json_object_get(peer->last, "error"));
	strcpy(ret_error, error ? strrchr(error, '.') + 1 : "");
	return json_object_get(peer->last, "parameters");
}

static void expect_error(struct peer *peer, const char *method, const char *parameters,
			 const char *expected)
{
	char error[64];

	call(peer, method, parameters, error);
	cr_expect_str_eq(error, expected, "%s(%s): %s", method, parameters, error);
}

#define expect_ok(peer, method, parameters) expect_error(peer, method, parameters, "")

static size_t n_groups(struct peer *peer)
{
	char error[64];

	return json_array_size(json_object_get(call(peer, "List", "{}", error), "groups"));
}

Test(control, create)
{
	char error[64];
	const char *key;

	key = json_string_value(json_object_get(
	    call(&user, "Create", "{\"name\":\"g\",\"limit\":67108864}", error), "key"));
	cr_assert(key);
	cr_expect_eq(strlen(key), 16);
	cr_expect_eq(registry_group(&registry, "g")->key, strtoull(key, NULL, 16));
	expect_error(&user, "Create", "{\"name\":\"g\",\"limit\":67108864}", "GroupExists");
	expect_error(&user, "Create", "{\"name\":\"h\",\"limit\":1}", "LimitOutOfRange");
	expect_error(&user, "Create", "{\"name\":\"h\",\"limit\":-1}", "LimitOutOfRange");
	expect_error(&user, "Create", "{\"name\":\"h\",\"limit\":140737488355329}",
		     "LimitOutOfRange");
	expect_error(&user, "Create", "{\"name\":\"a b\",\"limit\":67108864}", "InvalidParameter");
	expect_error(&user, "Create", "{\"name\":\"h\"}", "InvalidParameter");
	expect_error(&user, "Create", "{\"name\":\"h\",\"limit\":\"64M\"}", "InvalidParameter");
	expect_error(&user, "Create", "{\"name\":\"h\",\"limit\":67108864,\"x\":1}",
		     "InvalidParameter");
	cr_expect_eq(fake_pager_n_groups(), 1);
}

Test(control, limit_error_says_what_is_possible)
{
	char error[64];
	json_t *parameters = call(&user, "Create", "{\"name\":\"h\",\"limit\":5}", error);

	cr_expect_eq(json_integer_value(json_object_get(parameters, "limit")), 5);
	cr_expect_eq(json_integer_value(json_object_get(parameters, "minimum")),
		     FAKE_MINIMUM_LIMIT);
	cr_expect_eq(json_integer_value(json_object_get(parameters, "maximum")), 1ll << 47);
}

Test(control, who_sees_what)
{
	expect_ok(&user, "Create", "{\"name\":\"g\",\"limit\":67108864}");
	cr_expect_eq(n_groups(&user), 1);
	cr_expect_eq(n_groups(&stranger), 0);
	cr_expect_eq(n_groups(&root), 1);
	expect_ok(&user, "Describe", "{\"group\":\"g\"}");
	expect_ok(&root, "Describe", "{\"group\":\"g\"}");
	expect_error(&stranger, "Describe", "{\"group\":\"g\"}", "NotOwner");
	expect_error(&stranger, "SetLimit", "{\"group\":\"g\",\"limit\":67108864}", "NotOwner");
	expect_error(&stranger, "Monitor", "{\"group\":\"g\"}", "NotOwner");
	expect_error(&stranger, "Release", "{\"name\":\"g\"}", "NotOwner");
	expect_error(&root, "Release", "{\"name\":\"g\"}", "NotOwner");
	expect_ok(&root, "SetLimit", "{\"group\":\"g\",\"limit\":33554432}");
}

Test(control, release)
{
	expect_error(&user, "Release", "{\"name\":\"g\"}", "NoSuchGroup");
	expect_ok(&user, "Create", "{\"name\":\"g\",\"limit\":67108864}");
	expect_ok(&user, "Release", "{\"name\":\"g\"}");
	expect_error(&user, "Describe", "{\"group\":\"g\"}", "NoSuchGroup");
}

Test(control, set_limit)
{
	char error[64];
	json_t *group;

	expect_ok(&user, "Create", "{\"name\":\"g\",\"limit\":67108864}");
	group = json_object_get(
	    call(&user, "SetLimit", "{\"group\":\"g\",\"limit\":33554432}", error), "group");
	cr_expect_eq(json_integer_value(json_object_get(group, "limit")), 33554432);
	cr_expect_eq(json_integer_value(json_object_get(group, "uid")), 1000);
	expect_error(&user, "SetLimit", "{\"group\":\"g\",\"limit\":4096}", "LimitOutOfRange");
	expect_error(&user, "SetLimit", "{\"group\":\"x\",\"limit\":33554432}", "NoSuchGroup");
}

static void attach(const char *name, pid_t pid)
{
	struct group *group = registry_group(&registry, name);
	struct pager_attach what = {pid, -1, -1, -1, -1, -1, -1, -1, 0, 0};
	struct pager_welcome welcome;
	pager_task_id id;

	cr_assert_eq(pager_attach(pager, group->pager, &what, &welcome, &id), 0);
	registry_task_add(&registry, group, id, 0, pid);
}

static void detach(pid_t pid)
{
	pager_detach(pager, registry_task_by_pid(&registry, pid)->id);
	notices_drain(&notices);
}

Test(control, describe)
{
	char error[64], text[64];
	json_t *reply, *task;

	expect_ok(&user, "Create", "{\"name\":\"g\",\"limit\":67108864}");
	attach("g", getpid());
	snprintf(text, sizeof(text), "{\"pid\":%d}", (int)getpid());
	reply = call(&user, "Describe", text, error);
	task = json_array_get(json_object_get(reply, "tasks"), 0);
	cr_expect_eq(json_integer_value(json_object_get(task, "pid")), getpid());
	cr_expect_str_eq(json_string_value(json_object_get(task, "group")), "g");
	cr_expect_str_not_empty(json_string_value(json_object_get(task, "command")));
	expect_error(&stranger, "Describe", text, "NoSuchTask");
	expect_error(&user, "Describe", "{\"pid\":1}", "NoSuchTask");
	expect_error(&user, "Describe", "{\"pid\":99999999999}", "NoSuchTask");
	expect_error(&user, "Describe", "{}", "InvalidParameter");
	expect_error(&user, "Describe", "{\"group\":\"g\",\"pid\":1}", "InvalidParameter");
	detach(getpid());
}

Test(control, tiers)
{
	char error[64];
	json_t *tiers = json_object_get(call(&stranger, "Tiers", "{}", error), "tiers");

	cr_expect_eq(json_array_size(tiers), 2);
	cr_expect(json_is_null(json_object_get(json_array_get(tiers, 0), "path")));
	cr_expect_str_eq(json_string_value(json_object_get(json_array_get(tiers, 1), "path")),
			 "/tmp");
}

/* Every field that the interface file promises is there, and none that it does not. */
Test(control, fields_are_the_interface_s)
{
	static const char *const fields[] = {"name",  "uid",	 "limit",    "resident",
					     "peak",  "evicted", "overhead", "metadata",
					     "tasks", "armed",	 "age_ms",   "counters"};
	char error[64];
	json_t *group;

	expect_ok(&user, "Create", "{\"name\":\"g\",\"limit\":67108864}");
	group = json_object_get(call(&user, "Describe", "{\"group\":\"g\"}", error), "group");
	cr_expect_eq(json_object_size(group), sizeof(fields) / sizeof(*fields));
	for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++)
		cr_expect(json_object_get(group, fields[i]), "%s", fields[i]);
	cr_expect_eq(
	    json_integer_value(json_object_get(json_object_get(group, "counters"), "zero")), 7);
}

/* ---- Snapshot ---- */

static int a_file(int flags)
{
	char path[] = "/tmp/upager-test-XXXXXX";
	int made = mkstemp(path), fd = open(path, flags | O_CLOEXEC);

	cr_assert(made >= 0 && fd >= 0);
	close(made);
	unlink(path);
	return fd;
}

static bool ask_more;

/* Without a wait for an answer; returns how many came at once. */
static unsigned snapshot(struct peer *peer, pid_t pid, int fd)
{
	char message[256];

	snprintf(message, sizeof(message),
		 "{\"method\":\"io.upager.Pager.Snapshot\",\"parameters\":{\"pid\":%d,\"fd\":%d}%s}",
		 (int)pid, fd, ask_more ? ",\"more\":true" : "");
	peer->n = 0;
	cr_assert_eq(varlink_feed(&peer->link, message, strlen(message) + 1), 0);
	return peer->n;
}

static const char *error_of(const struct peer *peer)
{
	const char *error = json_string_value(json_object_get(peer->last, "error"));

	return error ? strrchr(error, '.') + 1 : "";
}

static json_int_t errno_of(const struct peer *peer)
{
	return json_integer_value(
	    json_object_get(json_object_get(peer->last, "parameters"), "errno"));
}

static pager_task_id task_with_group(void)
{
	expect_ok(&user, "Create", "{\"name\":\"g\",\"limit\":67108864}");
	attach("g", getpid());
	return registry_task_by_pid(&registry, getpid())->id;
}

Test(control, snapshot_answers_when_it_is_whole)
{
	static const char *const fields[] = {"resident", "evicted", "lost", "stall_us"};
	static const json_int_t expected[] = {8192, 4096, 4096, 5};
	pager_task_id id = task_with_group();
	int fd = a_file(O_RDWR);
	json_t *reply;

	cr_expect_eq(snapshot(&user, getpid(), fd), 0);
	cr_expect_eq(fcntl(fd, F_GETFD), FD_CLOEXEC, "it is a duplicate that was taken");
	fake_pager_snapshot_begins(pager, id);
	fake_pager_snapshot_ends(pager, id, 0);
	notices_drain(&notices);
	cr_assert_eq(user.n, 1);
	reply = json_object_get(user.last, "parameters");
	cr_expect_eq(json_object_size(reply), 4);
	for (size_t i = 0; i < 4; i++)
		cr_expect_eq(json_integer_value(json_object_get(reply, fields[i])), expected[i], "%s",
			     fields[i]);
	close(fd);
	detach(getpid());
}

Test(control, snapshot_tells_of_its_moment)
{
	pager_task_id id = task_with_group();
	int fd = a_file(O_RDWR);

	ask_more = true;
	cr_expect_eq(snapshot(&user, getpid(), fd), 0);
	fake_pager_snapshot_begins(pager, id);
	notices_drain(&notices);
	cr_expect(user.n == 1 && json_is_true(json_object_get(user.last, "continues")));
	fake_pager_snapshot_ends(pager, id, 0);
	notices_drain(&notices);
	cr_expect(user.n == 2 && !json_is_true(json_object_get(user.last, "continues")));
	close(fd);
	detach(getpid());
}

Test(control, snapshot_fails)
{
	pager_task_id id = task_with_group();
	int fd = a_file(O_WRONLY);

	for (int error = 1; error < 134; error++) {
		cr_expect_eq(snapshot(&user, getpid(), fd), 0);
		cr_expect_eq(snapshot(&root, getpid(), fd), 1, "a second one at once");
		cr_expect_str_eq(error_of(&root), "Failed");
		cr_expect_eq(errno_of(&root), EBUSY);
		fake_pager_snapshot_ends(pager, id, error);
		notices_drain(&notices);
		cr_assert_eq(user.n, 1);
		cr_expect_str_eq(error_of(&user), "Failed");
		cr_expect_eq(errno_of(&user), error);
	}
	close(fd);
	detach(getpid());
}

Test(control, snapshot_of_what_is_not_one_s_own)
{
	int fd = a_file(O_RDWR);

	cr_expect_eq(snapshot(&user, getpid(), fd), 1);
	cr_expect_str_eq(error_of(&user), "NoSuchTask");
	task_with_group();
	cr_expect_eq(snapshot(&stranger, getpid(), fd), 1);
	cr_expect_str_eq(error_of(&stranger), "NoSuchTask");
	expect_error(&user, "Snapshot", "{\"pid\":1,\"fd\":0}", "NoSuchTask");
	expect_error(&user, "Snapshot", "{}", "InvalidParameter");
	expect_error(&user, "Snapshot", "{\"pid\":1}", "InvalidParameter");
	expect_error(&user, "Snapshot", "{\"pid\":1,\"fd\":\"/tmp/x\"}", "InvalidParameter");
	expect_error(&user, "Snapshot", "{\"pid\":1,\"fd\":0,\"path\":\"/x\"}", "InvalidParameter");
	close(fd);
	detach(getpid());
}

Test(control, snapshot_into_what_is_no_file)
{
	int fds[] = {a_file(O_RDONLY), a_file(O_RDWR | O_APPEND), a_file(O_PATH), a_file(O_RDWR),
		     a_file(O_RDWR | O_DIRECT), open("/dev/null", O_RDWR), 4000, -1};

	task_with_group();
	cr_assert_eq(write(fds[3], "x", 1), 1);
	for (size_t i = 0; i < sizeof(fds) / sizeof(*fds); i++) {
		cr_expect_eq(snapshot(&user, getpid(), fds[i]), 1, "%zu", i);
		cr_expect_str_eq(error_of(&user), "InvalidParameter", "%zu", i);
	}
	expect_error(&user, "Snapshot", "{\"pid\":1,\"fd\":4294967296}", "NoSuchTask");
	for (size_t i = 0; i < 6; i++)
		close(fds[i]);
	detach(getpid());
}

/* The caller goes: the snapshot ends, and nobody is answered. */
Test(control, snapshot_is_cancelled)
{
	pager_task_id id = task_with_group();
	int fd = a_file(O_RDWR);
	struct peer other;

	memset(&other, 0, sizeof(other));
	peer_init(&other, 1000);
	cr_expect_eq(snapshot(&other, getpid(), fd), 0);
	cr_expect_neq(fake_pager_task(pager, id)->snapshot, 0);
	peer_done(&other);
	cr_expect_eq(fake_pager_task(pager, id)->snapshot, 0);
	/* The next one begins before its end has been heard of. */
	cr_expect_eq(snapshot(&user, getpid(), fd), 0);
	notices_drain(&notices);
	cr_expect_eq(user.n, 0);
	fake_pager_snapshot_ends(pager, id, 0);
	notices_drain(&notices);
	cr_expect_eq(user.n, 1);
	close(fd);
	detach(getpid());
}

static void monitor(struct peer *peer, const char *parameters)
{
	char message[256];

	snprintf(message, sizeof(message),
		 "{\"method\":\"io.upager.Pager.Monitor\",\"more\":true,\"parameters\":%s}",
		 parameters);
	peer->n = 0;
	varlink_feed(&peer->link, message, strlen(message) + 1);
}

static void pump(struct peer *peer, unsigned until)
{
	for (unsigned i = 0; peer->n < until && i < 200; i++)
		uv_run(&loop, UV_RUN_ONCE);
	cr_assert_geq(peer->n, until);
}

Test(control, monitor_once)
{
	char error[64];
	json_t *reply;

	expect_ok(&user, "Create", "{\"name\":\"g\",\"limit\":67108864}");
	reply = call(&user, "Monitor", "{}", error);
	cr_expect_eq(json_array_size(json_object_get(reply, "groups")), 1);
	cr_expect_eq(json_array_size(json_object_get(reply, "events")), 0);
	expect_error(&user, "Monitor", "{\"interval_ms\":9}", "InvalidParameter");
	expect_error(&user, "Monitor", "{\"interval_ms\":60001}", "InvalidParameter");
	expect_error(&user, "Monitor", "{\"group\":\"x\"}", "NoSuchGroup");
}

Test(control, monitor_more)
{
	json_t *event;

	expect_ok(&user, "Create", "{\"name\":\"g\",\"limit\":67108864}");
	monitor(&root, "{\"group\":\"g\",\"interval_ms\":10}");
	cr_expect_eq(root.n, 1);
	cr_expect(json_is_true(json_object_get(root.last, "continues")));
	pump(&root, 3);
	fake_pager_notice(pager,
			  &(struct pager_notice){.kind = PAGER_NOTICE_IO_ERROR,
						 .group = registry_group(&registry, "g")->pager,
						 .pid = 12,
						 .address = 0x1000,
						 .value = 5});
	notices_drain(&notices);
	pump(&root, root.n + 1);
	event =
	    json_array_get(json_object_get(json_object_get(root.last, "parameters"), "events"), 0);
	cr_assert(event);
	cr_expect_str_eq(json_string_value(json_object_get(event, "kind")), "io_error");
	cr_expect_str_eq(json_string_value(json_object_get(event, "address")), "0x1000");
	cr_expect_eq(json_integer_value(json_object_get(event, "pid")), 12);
	cr_expect(json_is_null(json_object_get(event, "task")));
	root.n = 0;
	expect_ok(&user, "Release", "{\"name\":\"g\"}");
	cr_expect_eq(root.n, 1);
	cr_expect_null(json_object_get(root.last, "continues"));
}

Test(control, monitor_shows_only_one_s_own)
{
	expect_ok(&user, "Create", "{\"name\":\"g\",\"limit\":67108864}");
	monitor(&stranger, "{\"interval_ms\":60000}");
	cr_expect_eq(stranger.n, 1);
	fake_pager_notice(pager,
			  &(struct pager_notice){.kind = PAGER_NOTICE_SWAP_FULL,
						 .group = registry_group(&registry, "g")->pager});
	notices_drain(&notices);
	for (unsigned i = 0; i < 20; i++) {
		uv_run(&loop, UV_RUN_NOWAIT);
		uv_sleep(1);
	}
	cr_expect_eq(stranger.n, 1);
}

Test(control, closing_ends_what_was_made)
{
	struct peer other;

	memset(&other, 0, sizeof(other));
	peer_init(&other, 1000);
	expect_ok(&other, "Create", "{\"name\":\"g\",\"limit\":67108864}");
	monitor(&other, "{}");
	peer_done(&other);
	cr_expect_eq(n_groups(&user), 0);
}
