/* Those who wait for the daemon to start: systemd, or the `upager run` that started it. */
#pragma once

struct notify {
	int fd; /* --embedded's, or -1 */
};

/* {"ready":true,"socket":"…"} */
void notify_ready(const struct notify *notify, const char *socket);
/* {"error":"…"} */
void notify_failed(const struct notify *notify, const char *message);
void notify_stopping(void);
