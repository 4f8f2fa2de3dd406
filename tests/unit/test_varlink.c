#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "varlink.h"

static char sent[1 << 16]; /* NULs are newlines here */
static size_t sent_size;
static struct varlink_call *kept;
static unsigned cancelled;

static void on_send(struct varlink *link, const char *message, size_t size)
{
	(void)link;
	cr_assert_eq(message[size - 1], 0);
	cr_assert_lt(sent_size + size, sizeof(sent));
	memcpy(sent + sent_size, message, size);
	sent[sent_size + size - 1] = '\n';
	sent_size += size;
	sent[sent_size] = 0;
}

static void run_echo(struct varlink_call *call)
{
	int64_t number = -1;
	const char *text = "none";

	if (varlink_parameters(
		call,
		(const struct varlink_parameter[]){{"n", VARLINK_INT, true, &number},
						   {"s", VARLINK_STRING, true, &text}},
		2))
		varlink_reply(call, json_pack("{s:I,s:s}", "n", (json_int_t)number, "s", text),
			      false);
}

static void on_cancelled(struct varlink_call *call)
{
	cr_expect_eq(call, kept);
	cancelled++;
}

static void run_keep(struct varlink_call *call)
{
	kept = call;
	call->cancelled = on_cancelled;
}

static void run_need(struct varlink_call *call)
{
	int64_t number;

	if (varlink_parameters(call, &(struct varlink_parameter){"n", VARLINK_INT, false, &number},
			       1))
		varlink_reply(call, NULL, false);
}

static const struct varlink_interface interface = {
    .name = "a.b",
    .description = "interface a.b\n",
    .methods = (const struct varlink_method[]){
	{"Echo", run_echo}, {"Keep", run_keep}, {"Need", run_need}, {NULL, NULL}}};
static const struct varlink_service service = {
    "v", "p", "1", "u", (const struct varlink_interface *const[]){&interface, NULL}};
static struct varlink link_;

static void setup(void)
{
	varlink_init(&link_, &service, on_send, NULL);
}

static void teardown(void)
{
	varlink_done(&link_);
}

TestSuite(varlink, .init = setup, .fini = teardown);

static void expect_reply(const char *call, const char *reply)
{
	sent_size = 0;
	sent[0] = 0;
	cr_expect_eq(varlink_feed(&link_, call, strlen(call) + 1), 0);
	cr_expect_str_eq(sent, reply, "%s\n  gave: %s", call, sent);
}

#define INVALID(parameter)                                                                         \
	"{\"error\":\"org.varlink.service.InvalidParameter\",\"parameters\":{\"parameter\":"       \
	"\"" parameter "\"}}\n"

Test(varlink, calls)
{
	expect_reply("{\"method\":\"a.b.Echo\"}", "{\"parameters\":{\"n\":-1,\"s\":\"none\"}}\n");
	expect_reply("{\"method\":\"a.b.Echo\",\"parameters\":{\"n\":5,\"s\":null},\"more\":true}",
		     "{\"parameters\":{\"n\":5,\"s\":\"none\"}}\n");
	expect_reply("{\"method\":\"a.b.Echo\",\"oneway\":true}", "");
	expect_reply("{\"method\":\"a.b.Echo\",\"oneway\":true,\"parameters\":{\"x\":1}}", "");
	expect_reply("{\"method\":\"a.b.Need\",\"parameters\":{\"n\":1}}", "{\"parameters\":{}}\n");
}

Test(varlink, service)
{
	expect_reply("{\"method\":\"org.varlink.service.GetInfo\"}",
		     "{\"parameters\":{\"vendor\":\"v\",\"product\":\"p\",\"version\":\"1\","
		     "\"url\":\"u\",\"interfaces\":[\"org.varlink.service\",\"a.b\"]}}\n");
	expect_reply("{\"method\":\"org.varlink.service.GetInterfaceDescription\",\"parameters\":{"
		     "\"interface\":\"a.b\"}}",
		     "{\"parameters\":{\"description\":\"interface a.b\\n\"}}\n");
	expect_reply("{\"method\":\"org.varlink.service.GetInterfaceDescription\",\"parameters\":{"
		     "\"interface\":\"a\"}}",
		     "{\"error\":\"org.varlink.service.InterfaceNotFound\",\"parameters\":{"
		     "\"interface\":\"a\"}}\n");
	expect_reply("{\"method\":\"org.varlink.service.GetInterfaceDescription\"}",
		     INVALID("interface"));
	static const char own[] = "{\"method\":\"org.varlink.service.GetInterfaceDescription\","
				  "\"parameters\":{\"interface\":\"org.varlink.service\"}}";

	sent_size = 0;
	cr_expect_eq(varlink_feed(&link_, own, sizeof(own)), 0);
	cr_expect(strstr(sent, "interface org.varlink.service\\n"), "%s", sent);
}

Test(varlink, not_found)
{
	expect_reply("{\"method\":\"a.c.Echo\"}",
		     "{\"error\":\"org.varlink.service.InterfaceNotFound\",\"parameters\":{"
		     "\"interface\":\"a.c\"}}\n");
	expect_reply("{\"method\":\"a.b.Echoes\"}",
		     "{\"error\":\"org.varlink.service.MethodNotFound\",\"parameters\":{"
		     "\"method\":\"a.b.Echoes\"}}\n");
	expect_reply("{\"method\":\"Echo\"}", INVALID("method"));
	expect_reply("{\"method\":\".Echo\"}", INVALID("method"));
	expect_reply("{\"method\":\"a.b.\"}", INVALID("method"));
}

Test(varlink, malformed)
{
	expect_reply("{}", INVALID("method"));
	expect_reply("[1]", INVALID("message: not an object"));
	expect_reply("{\"method\":1}", INVALID("method"));
	expect_reply("{\"method\":\"a.b.Echo\",\"parameters\":[]}", INVALID("parameters"));
	expect_reply("{\"method\":\"a.b.Echo\",\"more\":1}", INVALID("more"));
	expect_reply("{\"method\":\"a.b.Echo\",\"upgrade\":true}", INVALID("upgrade"));
	expect_reply("{\"method\":\"a.b.Echo\",\"more\":true,\"oneway\":true}", "");
	expect_reply("{\"method\":\"a.b.Echo\",\"parameters\":{\"x\":1}}", INVALID("x"));
	expect_reply("{\"method\":\"a.b.Echo\",\"parameters\":{\"n\":\"1\"}}", INVALID("n"));
	expect_reply("{\"method\":\"a.b.Echo\",\"parameters\":{\"n\":1.5}}", INVALID("n"));
	expect_reply("{\"method\":\"a.b.Need\",\"parameters\":{\"n\":null}}", INVALID("n"));
	expect_reply("{\"method\":",
		     INVALID("message: byte 10: unexpected token near end of file"));
	expect_reply("{\"method\":\"a.b.Echo\",\"method\":\"a.b.Echo\"}",
		     INVALID("message: byte 29: duplicate object key near '\\\"method\\\"'"));
	expect_reply("", INVALID("message: byte 0: '[' or '{' expected near end of file"));
	/* and after all that the connection goes on */
	expect_reply("{\"method\":\"a.b.Echo\"}", "{\"parameters\":{\"n\":-1,\"s\":\"none\"}}\n");
}

Test(varlink, split)
{
	static const char call[] = "{\"method\":\"a.b.Echo\"}";

	for (size_t i = 0; i < sizeof(call); i++) {
		cr_expect_str_empty(sent);
		cr_expect_eq(varlink_feed(&link_, call + i, 1), 0);
	}
	cr_expect_str_eq(sent, "{\"parameters\":{\"n\":-1,\"s\":\"none\"}}\n");
}

Test(varlink, pipelined_in_order)
{
	static const char calls[] = "{\"method\":\"a.b.Echo\",\"parameters\":{\"n\":1}}\0"
				    "{\"method\":\"a.b.Keep\",\"more\":true}\0"
				    "{\"method\":\"a.b.Echo\",\"parameters\":{\"n\":2}}\0"
				    "junk\0"
				    "{\"method\":\"a.b.Echo\",\"parameters\":{\"n\":3}}";

	cr_expect_eq(varlink_feed(&link_, calls, sizeof(calls)), 0);
	cr_expect_str_eq(sent, "{\"parameters\":{\"n\":1,\"s\":\"none\"}}\n");
	cr_assert(kept);
	sent_size = 0;
	varlink_reply(kept, NULL, true);
	cr_expect_str_eq(sent, "{\"parameters\":{},\"continues\":true}\n");
	sent_size = 0;
	varlink_reply(kept, NULL, false);
	cr_expect_str_eq(
	    sent, "{\"parameters\":{}}\n"
		  "{\"parameters\":{\"n\":2,\"s\":\"none\"}}\n" INVALID(
		      "message: byte 4: '[' or '{' expected near 'junk'") "{\"parameters\":{\"n\":"
									  "3,\"s\":\"none\"}}\n");
}

Test(varlink, closing_cancels)
{
	struct varlink other;

	varlink_init(&other, &service, on_send, NULL);
	varlink_feed(&other, "{\"method\":\"a.b.Keep\"}", 22);
	varlink_done(&other);
	cr_expect_eq(cancelled, 1);
}

static char *padded(size_t size)
{
	char *call = malloc(size + 1);

	memset(call, ' ', size);
	memcpy(call, "{\"method\":\"a.b.Echo\"", 20);
	call[size - 1] = '}';
	call[size] = 0;
	return call;
}

Test(varlink, longest)
{
	char *call = padded(VARLINK_MESSAGE_MAX);

	cr_expect_eq(varlink_feed(&link_, call, VARLINK_MESSAGE_MAX + 1), 0);
	cr_expect_str_eq(sent, "{\"parameters\":{\"n\":-1,\"s\":\"none\"}}\n");
	free(call);
}

Test(varlink, too_long)
{
	char *call = padded(VARLINK_MESSAGE_MAX + 1);

	cr_expect_eq(varlink_feed(&link_, call, VARLINK_MESSAGE_MAX + 2), -EMSGSIZE);
	cr_expect_str_eq(sent, INVALID("message: longer than 1048576 bytes"));
	cr_expect(link_.dead);
	free(call);
}

Test(varlink, queue_is_bounded)
{
	char junk[4096];
	int r = 0;

	memset(junk, 'x', sizeof(junk));
	junk[sizeof(junk) - 1] = 0;
	varlink_feed(&link_, "{\"method\":\"a.b.Keep\"}", 22);
	for (unsigned i = 0; i < 300 && r == 0; i++)
		r = varlink_feed(&link_, junk, sizeof(junk));
	cr_expect_eq(r, -EMSGSIZE);
}

Test(varlink, many_at_once)
{
	static char calls[22 * 1000];

	for (size_t i = 0; i < sizeof(calls); i += 22)
		memcpy(calls + i, "{\"method\":\"a.b.Echo\"}", 22);
	cr_expect_eq(varlink_feed(&link_, calls, sizeof(calls)), 0);
	cr_expect_eq(sent_size, 1000 * strlen("{\"parameters\":{\"n\":-1,\"s\":\"none\"}}\n"));
}

/* Whatever comes, nothing breaks and no byte is kept for ever. */
Test(varlink, noise)
{
	static const char alphabet[] = "{}[]\":,\\0123456789aecmthodr.EN \n\xff";
	unsigned seed = 1;
	char noise[512];

	for (unsigned round = 0; round < 2000; round++) {
		for (size_t i = 0; i < sizeof(noise); i++)
			noise[i] = alphabet[(unsigned)rand_r(&seed) % (sizeof(alphabet))];
		sent_size = 0;
		cr_assert_eq(varlink_feed(&link_, noise, sizeof(noise)), 0);
	}
}

Test(varlink, text_that_is_not_utf8)
{
	json_t *text = varlink_text("a\xff"
				    "b");

	cr_expect_str_eq(json_string_value(text), "a?b");
	json_decref(text);
}
