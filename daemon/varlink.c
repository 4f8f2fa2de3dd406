#include "varlink.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SERVICE "org.varlink.service"

static const char service_description[] =
#include "org.varlink.service.inc"
    ;

void varlink_init(struct varlink *link, const struct varlink_service *service,
		  void (*send)(struct varlink *, const char *, size_t), void *context)
{
	*link = (struct varlink){.service = service, .send = send, .context = context};
}

static void call_free(struct varlink_call *call)
{
	json_decref(call->message);
	free(call);
}

void varlink_done(struct varlink *link)
{
	struct varlink_call *call = link->current;

	link->dead = true;
	link->current = NULL;
	if (call) {
		if (call->cancelled)
			call->cancelled(call);
		call_free(call);
	}
	free(link->buffer);
	link->buffer = NULL;
	link->used = link->scanned = link->allocated = 0;
}

json_t *varlink_text(const char *text)
{
	json_t *value = json_string(text);
	char *copy;

	if (value || !(copy = strdup(text)))
		return value;
	for (char *p = copy; *p; p++)
		if ((unsigned char)*p >= 0x80)
			*p = '?';
	value = json_string(copy);
	free(copy);
	return value;
}

static void send_json(struct varlink *link, json_t *message)
{
	char *text = json_dumps(message, JSON_COMPACT);

	/* Out of memory: silence would leave the peer waiting for ever. */
	if (!text)
		link->dead = true;
	else if (!link->dead)
		link->send(link, text, strlen(text) + 1);
	free(text);
	json_decref(message);
}

static int dispatch_all(struct varlink *link);

static void call_answered(struct varlink_call *call)
{
	struct varlink *link = call->link;

	assert(link->current == call);
	link->current = NULL;
	call_free(call);
	if (!link->dispatching)
		dispatch_all(link);
}

void varlink_reply(struct varlink_call *call, json_t *parameters, bool continues)
{
	assert(!continues || call->more);
	if (!parameters)
		parameters = json_object();
	if (call->oneway)
		json_decref(parameters);
	else if (continues)
		send_json(call->link,
			  json_pack("{s:o,s:b}", "parameters", parameters, "continues", 1));
	else
		send_json(call->link, json_pack("{s:o}", "parameters", parameters));
	if (!continues)
		call_answered(call);
}

static void send_error(struct varlink *link, const char *error, json_t *parameters)
{
	if (!parameters)
		parameters = json_object();
	send_json(link, json_pack("{s:s,s:o}", "error", error, "parameters", parameters));
}

void varlink_error(struct varlink_call *call, const char *error, json_t *parameters)
{
	if (call->oneway)
		json_decref(parameters);
	else
		send_error(call->link, error, parameters);
	call_answered(call);
}

static json_t *one_text(const char *name, const char *text)
{
	return json_pack("{s:o}", name, varlink_text(text));
}

void varlink_invalid(struct varlink_call *call, const char *parameter)
{
	varlink_error(call, SERVICE ".InvalidParameter", one_text("parameter", parameter));
}

static const struct varlink_parameter *find_parameter(const struct varlink_parameter *expected,
						      size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(expected[i].name, name))
			return &expected[i];
	return NULL;
}

static bool take_parameter(const struct varlink_parameter *expected, json_t *value)
{
	if (!value || json_is_null(value))
		return expected->nullable;
	if (expected->type == VARLINK_STRING && json_is_string(value))
		*(const char **)expected->ret = json_string_value(value);
	else if (expected->type == VARLINK_INT && json_is_integer(value))
		*(int64_t *)expected->ret = json_integer_value(value);
	else
		return false;
	return true;
}

bool varlink_parameters(struct varlink_call *call, const struct varlink_parameter *expected,
			size_t n)
{
	const char *name;
	json_t *value;

	json_object_foreach(call->parameters, name, value)
	{
		if (!find_parameter(expected, n, name)) {
			varlink_invalid(call, name);
			return false;
		}
	}
	for (size_t i = 0; i < n; i++) {
		value = json_object_get(call->parameters, expected[i].name);
		if (!take_parameter(&expected[i], value)) {
			varlink_invalid(call, expected[i].name);
			return false;
		}
	}
	return true;
}

static void run_get_info(struct varlink_call *call)
{
	const struct varlink_service *service = call->link->service;
	json_t *names;

	if (!varlink_parameters(call, NULL, 0))
		return;
	names = json_pack("[s]", SERVICE);
	for (size_t i = 0; service->interfaces[i]; i++)
		json_array_append_new(names, json_string(service->interfaces[i]->name));
	varlink_reply(call,
		      json_pack("{s:s,s:s,s:s,s:s,s:o}", "vendor", service->vendor, "product",
				service->product, "version", service->version, "url", service->url,
				"interfaces", names),
		      false);
}

static const struct varlink_interface *find_interface(const struct varlink_service *service,
						      const char *name, size_t length);

static void run_get_description(struct varlink_call *call)
{
	const struct varlink_interface *interface;
	const char *name = NULL;

	if (!varlink_parameters(
		call, &(struct varlink_parameter){"interface", VARLINK_STRING, false, &name}, 1))
		return;
	interface = find_interface(call->link->service, name, strlen(name));
	if (!interface)
		varlink_error(call, SERVICE ".InterfaceNotFound", one_text("interface", name));
	else
		varlink_reply(call, one_text("description", interface->description), false);
}

static const struct varlink_interface service_interface = {
    .name = SERVICE,
    .description = service_description,
    .methods = (const struct varlink_method[]){{"GetInfo", run_get_info},
					       {"GetInterfaceDescription", run_get_description},
					       {NULL, NULL}},
};

static const struct varlink_interface *find_interface(const struct varlink_service *service,
						      const char *name, size_t length)
{
	if (!strncmp(SERVICE, name, length) && strlen(SERVICE) == length)
		return &service_interface;
	for (size_t i = 0; service->interfaces[i]; i++)
		if (!strncmp(service->interfaces[i]->name, name, length) &&
		    strlen(service->interfaces[i]->name) == length)
			return service->interfaces[i];
	return NULL;
}

static void run(struct varlink_call *call)
{
	const char *dot = strrchr(call->method, '.');
	const struct varlink_interface *interface;

	if (!dot || dot == call->method || !dot[1]) {
		varlink_invalid(call, "method");
		return;
	}
	interface = find_interface(call->link->service, call->method, (size_t)(dot - call->method));
	if (!interface) {
		json_t *name = json_stringn(call->method, (size_t)(dot - call->method));

		varlink_error(call, SERVICE ".InterfaceNotFound",
			      json_pack("{s:o}", "interface", name));
		return;
	}
	for (const struct varlink_method *method = interface->methods; method->name; method++) {
		if (!strcmp(method->name, dot + 1)) {
			method->run(call);
			return;
		}
	}
	varlink_error(call, SERVICE ".MethodNotFound", one_text("method", call->method));
}

/* The flags a call may carry; a name of one that is no boolean, else NULL. */
static const char *read_flags(json_t *message, bool *ret_more, bool *ret_oneway, bool *ret_upgrade)
{
	static const char *const names[] = {"more", "oneway", "upgrade"};
	bool *const rets[] = {ret_more, ret_oneway, ret_upgrade};

	for (size_t i = 0; i < 3; i++) {
		json_t *value = json_object_get(message, names[i]);

		if (value && !json_is_boolean(value) && !json_is_null(value))
			return names[i];
		*rets[i] = json_is_true(value);
	}
	return NULL;
}

/* What is wrong with a message before its method is looked at, or NULL. */
static const char *check_message(json_t *message, struct varlink_call *call)
{
	bool upgrade = false;
	const char *wrong = read_flags(message, &call->more, &call->oneway, &upgrade);

	if (wrong)
		return wrong;
	call->method = json_string_value(json_object_get(message, "method"));
	if (!call->method)
		return "method";
	call->parameters = json_object_get(message, "parameters");
	if (json_is_null(call->parameters))
		call->parameters = NULL;
	if (call->parameters && !json_is_object(call->parameters))
		return "parameters";
	if (upgrade)
		return "upgrade";
	return call->more && call->oneway ? "oneway" : NULL;
}

static int dispatch(struct varlink *link, const char *text, size_t size)
{
	struct varlink_call *call;
	json_error_t error;
	json_t *message = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
	const char *wrong;

	if (!json_is_object(message)) {
		char what[JSON_ERROR_TEXT_LENGTH + 48];

		if (message)
			snprintf(what, sizeof(what), "message: not an object");
		else
			snprintf(what, sizeof(what), "message: byte %d: %s", error.position,
				 error.text);
		json_decref(message);
		send_error(link, SERVICE ".InvalidParameter", one_text("parameter", what));
		return 0;
	}
	call = calloc(1, sizeof(*call));
	if (!call) {
		json_decref(message);
		return -ENOMEM;
	}
	*call = (struct varlink_call){.link = link, .message = message};
	link->current = call;
	wrong = check_message(message, call);
	if (wrong)
		varlink_invalid(call, wrong);
	else
		run(call);
	return 0;
}

/* Hands over every complete message, as long as none waits for its answer. */
static int dispatch_all(struct varlink *link)
{
	size_t start = 0;
	int r = 0;

	link->dispatching = true;
	while (link->used && !link->current && !link->dead && r == 0) {
		char *end = memchr(link->buffer + link->scanned, 0, link->used - link->scanned);

		if (!end) {
			link->scanned = link->used;
			break;
		}
		r = dispatch(link, link->buffer + start, (size_t)(end - link->buffer) - start);
		start = link->scanned = (size_t)(end - link->buffer) + 1;
	}
	link->dispatching = false;
	if (start) {
		memmove(link->buffer, link->buffer + start, link->used - start);
		link->used -= start;
		link->scanned -= start;
	}
	return r;
}

static int reserve(struct varlink *link, size_t size)
{
	size_t wanted = link->allocated ? link->allocated : 4096;
	char *buffer;

	while (wanted < link->used + size)
		wanted *= 2;
	if (wanted == link->allocated)
		return 0;
	buffer = realloc(link->buffer, wanted);
	if (!buffer)
		return -ENOMEM;
	link->buffer = buffer;
	link->allocated = wanted;
	return 0;
}

int varlink_feed(struct varlink *link, const char *data, size_t size)
{
	while (size > 0 && !link->dead) {
		/* One byte beyond the limit is room for the NUL of the longest message. */
		size_t room = VARLINK_MESSAGE_MAX + 1 - link->used;
		size_t part = size < room ? size : room;
		int r = reserve(link, part);

		if (r < 0)
			return r;
		if (part == 0) {
			send_error(link, SERVICE ".InvalidParameter",
				   one_text("parameter", "message: longer than 1048576 bytes"));
			link->dead = true;
			return -EMSGSIZE;
		}
		memcpy(link->buffer + link->used, data, part);
		link->used += part;
		data += part;
		size -= part;
		if (!link->current) {
			r = dispatch_all(link);
			if (r < 0)
				return r;
		}
	}
	return 0;
}
