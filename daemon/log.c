#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static bool to_journal;
static int threshold = LOG_DEBUG;

/* JOURNAL_STREAM is inherited by whatever the service starts; it counts only if our own standard
 * error is that stream (systemd.exec(5)). */
static bool stderr_is_journal(void)
{
	const char *text = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat st;

	return text && sscanf(text, "%llu:%llu", &device, &inode) == 2 &&
	       fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

void log_init(bool quiet)
{
	to_journal = stderr_is_journal();
	threshold = quiet ? LOG_WARNING : LOG_DEBUG;
}

static void write_line(int priority, const char *format, va_list args)
{
	char line[1024];

	if (priority > threshold)
		return;
	vsnprintf(line, sizeof(line), format, args);
	if (to_journal)
		fprintf(stderr, "<%d>%s\n", priority, line);
	else
		fprintf(stderr, "upagerd: %s\n", line);
}

void log_message(int priority, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	write_line(priority, format, args);
	va_end(args);
}

void log_limited(int priority, const char *format, ...)
{
	static time_t window;
	static unsigned lines;
	struct timespec now;
	va_list args;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (now.tv_sec - window >= 10 || window == 0) {
		if (lines > 20)
			log_warning("%u more such messages were left out", lines - 20);
		window = now.tv_sec;
		lines = 0;
	}
	if (++lines > 20)
		return;
	va_start(args, format);
	write_line(priority, format, args);
	va_end(args);
}
