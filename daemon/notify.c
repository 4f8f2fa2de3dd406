#include "notify.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "varlink.h"

static void send_line(const struct notify *notify, json_t *object)
{
	char *text = json_dumps(object, JSON_COMPACT);

	/* Whoever waits may have gone: the main loop notices that. */
	if (text)
		(void)!dprintf(notify->fd, "%s\n", text);
	free(text);
	json_decref(object);
}

void notify_ready(const struct notify *notify, const char *socket)
{
	if (notify->fd >= 0)
		send_line(notify,
			  json_pack("{s:b,s:o}", "ready", 1, "socket", varlink_text(socket)));
	else
		sd_notifyf(0, "READY=1\nSTATUS=Listening on %s", socket);
}

void notify_failed(const struct notify *notify, const char *message)
{
	if (notify->fd >= 0)
		send_line(notify, json_pack("{s:o}", "error", varlink_text(message)));
	else
		sd_notifyf(0, "STATUS=%s", message);
}

void notify_stopping(void)
{
	sd_notify(0, "STOPPING=1");
}
