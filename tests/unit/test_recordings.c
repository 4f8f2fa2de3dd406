/* Snapshot and Trace: calls that write to a file of the caller's. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "control_rig.h"
#include "fake_pager.h"

TestSuite(recordings, .init = control_setup, .fini = control_teardown);

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

Test(recordings, snapshot_answers_when_it_is_whole)
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

Test(recordings, snapshot_tells_of_its_moment)
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

Test(recordings, snapshot_fails)
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

Test(recordings, snapshot_of_what_is_not_one_s_own)
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

Test(recordings, snapshot_into_what_is_no_file)
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
Test(recordings, snapshot_is_cancelled)
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

/* ---- Trace ---- */

/* Without a wait for an answer; returns how many came at once. */
static unsigned trace(struct peer *peer, const char *group, int fd, bool more)
{
	char message[256];

	snprintf(message, sizeof(message),
		 "{\"method\":\"io.upager.Pager.Trace\",\"more\":%s,"
		 "\"parameters\":{\"group\":\"%s\",\"fd\":%d}}",
		 more ? "true" : "false", group, fd);
	peer->n = 0;
	cr_assert_eq(varlink_feed(&peer->link, message, strlen(message) + 1), 0);
	return peer->n;
}

static void expect_figures(const struct peer *peer, json_int_t records, json_int_t dropped,
			   json_int_t bytes, bool continues)
{
	json_t *reply = json_object_get(peer->last, "parameters");

	cr_expect_eq(json_object_size(reply), 3);
	cr_expect_eq(json_integer_value(json_object_get(reply, "records")), records);
	cr_expect_eq(json_integer_value(json_object_get(reply, "dropped")), dropped);
	cr_expect_eq(json_integer_value(json_object_get(reply, "bytes")), bytes);
	cr_expect_eq(json_is_true(json_object_get(peer->last, "continues")), continues);
}

Test(recordings, trace_answers_when_it_has_ended)
{
	int fd = a_file(O_RDWR);

	task_with_group();
	cr_expect_eq(trace(&user, "g", fd, false), 0);
	cr_expect_eq(trace(&root, "g", fd, false), 1, "a second one at once");
	cr_expect_str_eq(error_of(&root), "Failed");
	cr_expect_eq(errno_of(&root), EBUSY);
	expect_error(&stranger, "EndTrace", "{\"group\":\"g\"}", "NotOwner");
	expect_ok(&root, "EndTrace", "{\"group\":\"g\"}");
	cr_expect_eq(user.n, 0);
	notices_drain(&notices);
	cr_assert_eq(user.n, 1);
	expect_figures(&user, 7, 2, 99, false);
	expect_error(&root, "EndTrace", "{\"group\":\"g\"}", "Failed");
	cr_expect(traces_are_over(&traces));
	close(fd);
	detach(getpid());
}

Test(recordings, trace_says_that_it_has_begun)
{
	int fd = a_file(O_WRONLY);

	task_with_group();
	cr_expect_eq(trace(&user, "g", fd, true), 1);
	expect_figures(&user, 0, 0, 0, true);
	fake_pager_trace_ends(registry_group(&registry, "g")->pager, ENOSPC);
	notices_drain(&notices);
	cr_assert_eq(user.n, 2);
	cr_expect_str_eq(error_of(&user), "Failed");
	cr_expect_eq(errno_of(&user), ENOSPC);
	close(fd);
	detach(getpid());
}

Test(recordings, trace_of_what_is_not_one_s_own)
{
	int fd = a_file(O_RDWR), bad = a_file(O_RDONLY);

	expect_error(&user, "Trace", "{\"group\":\"g\",\"fd\":0}", "NoSuchGroup");
	expect_error(&user, "EndTrace", "{\"group\":\"g\"}", "NoSuchGroup");
	task_with_group();
	cr_expect_eq(trace(&stranger, "g", fd, false), 1);
	cr_expect_str_eq(error_of(&stranger), "NotOwner");
	cr_expect_eq(trace(&user, "g", bad, false), 1);
	cr_expect_str_eq(error_of(&user), "InvalidParameter");
	expect_error(&user, "Trace", "{\"group\":\"g\"}", "InvalidParameter");
	expect_error(&user, "Trace", "{\"fd\":1}", "InvalidParameter");
	expect_error(&user, "Trace", "{\"group\":\"g\",\"fd\":-1}", "InvalidParameter");
	expect_error(&user, "EndTrace", "{}", "InvalidParameter");
	close(fd);
	close(bad);
	detach(getpid());
}

/* The caller goes, or the group. */
Test(recordings, trace_ends_with_its_caller_or_group)
{
	int fd = a_file(O_RDWR);
	struct peer other;

	memset(&other, 0, sizeof(other));
	peer_init(&other, 1000);
	task_with_group();
	cr_expect_eq(trace(&other, "g", fd, false), 0);
	peer_done(&other);
	cr_expect(traces_are_over(&traces));
	/* The next one begins before its end has been heard of. */
	expect_ok(&user, "Release", "{\"name\":\"g\"}");
	cr_expect_eq(trace(&user, "g", fd, false), 0);
	notices_drain(&notices);
	cr_expect_eq(user.n, 0);
	detach(getpid());
	cr_expect_null(registry_group(&registry, "g"));
	notices_drain(&notices);
	cr_assert_eq(user.n, 1);
	expect_figures(&user, 7, 2, 99, false);
	close(fd);
}
