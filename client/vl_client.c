#include "vl_client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/size.h"

#define REPLY_MAX     (64u << 20) /* bytes */
#define REPLY_TIMEOUT 15000       /* milliseconds */
#define WAITING_EVERY 200         /* milliseconds */

int vl_open(struct vl_client *ret, const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd;

	*ret = (struct vl_client){.fd = -1, .path = strdup(path)};
	if (!ret->path)
		return -ENOMEM;
	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		int error = -errno;

		close(fd);
		return error;
	}
	ret->fd = fd;
	return 0;
}

void vl_close(struct vl_client *client)
{
	if (client->fd >= 0)
		close(client->fd);
	free(client->path);
	free(client->buffer);
	free(client->error);
	json_decref(client->error_parameters);
	*client = (struct vl_client){.fd = -1};
}

static long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int wait_for(const struct vl_client *client, short events, long deadline)
{
	struct pollfd poll_fd = {.fd = client->fd, .events = events};

	for (long left; (left = deadline - now_ms()) > 0;) {
		bool slice = client->waiting && left > WAITING_EVERY;
		int n = poll(&poll_fd, 1, slice ? WAITING_EVERY : (int)left);

		if (n < 0)
			return errno == EINTR ? 0 : -errno;
		if (n)
			return 0;
		if (slice)
			client->waiting(client->context);
	}
	return -ETIMEDOUT;
}

static long patience_ms(const struct vl_client *client)
{
	return client->patience_s ? client->patience_s * 1000L : REPLY_TIMEOUT;
}

static int send_all(const struct vl_client *client, const char *bytes, size_t length, long deadline)
{
	while (length) {
		ssize_t n = send(client->fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
		int r;

		if (n > 0) {
			bytes += n;
			length -= (size_t)n;
		} else if (errno == EAGAIN) {
			r = wait_for(client, POLLOUT, deadline);
			if (r < 0)
				return r;
		} else if (errno != EINTR) {
			return errno == EPIPE ? -ECONNRESET : -errno;
		}
	}
	return 0;
}

static int receive_more(struct vl_client *client, long deadline)
{
	ssize_t n;
	int r;

	if (client->length == client->capacity) {
		size_t capacity = client->capacity ? 2 * client->capacity : 16384;
		char *buffer;

		if (capacity > REPLY_MAX)
			return -EPROTO;
		buffer = realloc(client->buffer, capacity);
		if (!buffer)
			return -ENOMEM;
		client->buffer = buffer;
		client->capacity = capacity;
	}
	r = wait_for(client, POLLIN, deadline);
	if (r < 0)
		return r;
	n = recv(client->fd, client->buffer + client->length, client->capacity - client->length,
		 MSG_DONTWAIT);
	if (n == 0)
		return -ECONNRESET;
	if (n < 0)
		return errno == EINTR || errno == EAGAIN ? 0 : -errno;
	client->length += (size_t)n;
	return 0;
}

/* One message, without its NUL, out of the buffer. */
static int receive_message(struct vl_client *client, json_t **ret, long deadline)
{
	for (size_t scanned = 0;;) {
		char *end = client->length > scanned
				    ? memchr(client->buffer + scanned, 0, client->length - scanned)
				    : NULL;
		int r;

		if (end) {
			size_t size = (size_t)(end - client->buffer);
			json_t *message = json_loadb(client->buffer, size, 0, NULL);

			client->length -= size + 1;
			memmove(client->buffer, end + 1, client->length);
			if (!json_is_object(message)) {
				json_decref(message);
				return -EPROTO;
			}
			*ret = message;
			return 0;
		}
		scanned = client->length;
		r = receive_more(client, deadline);
		if (r < 0)
			return r;
	}
}

static int take_reply(struct vl_client *client, json_t *message, json_t **ret)
{
	json_t *error = json_object_get(message, "error");
	json_t *parameters = json_object_get(message, "parameters");

	free(client->error);
	json_decref(client->error_parameters);
	client->error = NULL;
	client->error_parameters = NULL;
	if (json_is_string(error)) {
		client->error = strdup(json_string_value(error));
		client->error_parameters = json_incref(parameters);
		return VL_REFUSED;
	}
	if (parameters && !json_is_object(parameters))
		return -EPROTO;
	*ret = parameters ? json_incref(parameters) : json_object();
	return 0;
}

static int hang_up(struct vl_client *client, int r)
{
	if (r < 0 && client->fd >= 0) {
		close(client->fd); /* a late answer must not be taken for the next call's */
		client->fd = -1;
	}
	return r;
}

int vl_send(struct vl_client *client, const char *method, json_t *parameters, bool more)
{
	json_t *call = json_pack("{s:s+, s:o}", "method", VL_INTERFACE ".", method, "parameters",
				 parameters ? parameters : json_object());
	char *text;
	int r = -ENOMEM;

	if (more && call)
		json_object_set_new(call, "more", json_true());
	text = call ? json_dumps(call, JSON_COMPACT) : NULL;
	if (text && client->fd < 0)
		r = -ECONNRESET;
	else if (text)
		r = send_all(client, text, strlen(text) + 1, now_ms() + patience_ms(client));
	json_decref(call);
	free(text);
	return hang_up(client, r);
}

int vl_next(struct vl_client *client, json_t **ret, bool *ret_more)
{
	json_t *message = NULL;
	int r = client->fd < 0 ? -ECONNRESET : 0;

	if (r == 0)
		r = receive_message(client, &message, now_ms() + patience_ms(client));
	if (r == 0)
		r = take_reply(client, message, ret);
	if (r == 0 && ret_more)
		*ret_more = json_is_true(json_object_get(message, "continues"));
	json_decref(message);
	return hang_up(client, r);
}

int vl_call(struct vl_client *client, const char *method, json_t *parameters, json_t **ret)
{
	int r = vl_send(client, method, parameters, false);

	return r < 0 ? r : vl_next(client, ret, NULL);
}

bool vl_error_is(const struct vl_client *client, const char *name)
{
	static const char prefix[] = VL_INTERFACE ".";

	return client->error && !strncmp(client->error, prefix, sizeof(prefix) - 1) &&
	       !strcmp(client->error + sizeof(prefix) - 1, name);
}

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "?";
}

static char *explain_limit(const json_t *parameters)
{
	json_int_t limit = json_integer_value(json_object_get(parameters, "limit"));
	json_int_t minimum = json_integer_value(json_object_get(parameters, "minimum"));
	json_int_t maximum = json_integer_value(json_object_get(parameters, "maximum"));
	char a[24], b[24];
	char *text;
	int n;

	if (limit < minimum)
		n = asprintf(&text, "a limit of %s is too small: the minimum is %s (%lld bytes)",
			     size_format((uint64_t)limit, a), size_format((uint64_t)minimum, b),
			     (long long)minimum);
	else
		n = asprintf(&text, "a limit of %s is too large: the maximum is %s (%lld bytes)",
			     size_format((uint64_t)limit, a), size_format((uint64_t)maximum, b),
			     (long long)maximum);
	return n < 0 ? NULL : text;
}

static char *explain_refusal(const struct vl_client *client)
{
	const json_t *p = client->error_parameters;
	char *text = NULL;
	int n = -1;

	if (vl_error_is(client, "LimitOutOfRange"))
		return explain_limit(p);
	if (vl_error_is(client, "NoSuchGroup"))
		n = asprintf(&text, "there is no group \"%s\"; `upager ps` lists them",
			     text_of(p, "group"));
	else if (vl_error_is(client, "NoSuchTask"))
		n = asprintf(&text, "process %lld is no task of upager; `upager ps` lists them",
			     (long long)json_integer_value(json_object_get(p, "pid")));
	else if (vl_error_is(client, "GroupExists"))
		n = asprintf(&text, "a group named \"%s\" exists already; choose another --name",
			     text_of(p, "group"));
	else if (vl_error_is(client, "NotOwner"))
		n = asprintf(&text, "group \"%s\" belongs to another user", text_of(p, "group"));
	else if (vl_error_is(client, "Failed"))
		n = asprintf(&text, "%s: %s", text_of(p, "what"),
			     strerror((int)json_integer_value(json_object_get(p, "errno"))));
	else if (client->error && !strcmp(client->error, "org.varlink.service.InvalidParameter"))
		n = asprintf(&text, "the daemon refuses the value of \"%s\"",
			     text_of(p, "parameter"));
	else if (client->error && !strcmp(client->error, "org.varlink.service.PermissionDenied"))
		n = asprintf(&text, "the daemon does not permit this to your user");
	else
		n = asprintf(&text, "the daemon answered with the error %s",
			     client->error ? client->error : "?");
	return n < 0 ? NULL : text;
}

char *vl_explain(const struct vl_client *client, int result)
{
	const char *path = client->path ? client->path : "?";
	char *text = NULL;
	int n;

	if (result == VL_REFUSED)
		return explain_refusal(client);
	if (result == -ENOENT || result == -ECONNREFUSED)
		n = asprintf(&text,
			     "no daemon listens on %s: start one with `upagerd --socket %s`, "
			     "or `systemctl start upagerd`",
			     path, path);
	else if (result == -EACCES || result == -EPERM)
		n = asprintf(&text, "you may not connect to %s: its owner can give access", path);
	else if (result == -ENAMETOOLONG)
		n = asprintf(&text, "%s is too long for a socket's path (107 bytes)", path);
	else if (result == -ECONNRESET || result == -EPIPE)
		n = asprintf(&text, "the daemon on %s went away in the middle of the call", path);
	else if (result == -ETIMEDOUT)
		n = asprintf(&text, "the daemon on %s did not answer within %ld s", path,
			     patience_ms(client) / 1000);
	else if (result == -EPROTO)
		n = asprintf(&text, "what listens on %s does not speak varlink", path);
	else
		n = asprintf(&text, "%s: %s", path, strerror(-result));
	return n < 0 ? NULL : text;
}
