#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "control_rig.h"
#include "fake_pager.h"

TestSuite(control, .init = control_setup, .fini = control_teardown);

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
