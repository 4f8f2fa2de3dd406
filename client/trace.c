/* `upager trace`: records what happens to a group, or converts such a record. */
#include "trace.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "ask.h"
#include "base/size.h"
#include "commands.h"
#include "figures.h"
#include "terminal.h"
#include "trace_file.h"

static volatile sig_atomic_t interrupted;
static double ends_at; /* seconds; 0: when it is ended */

int trace_create(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	return fd < 0 ? -errno : fd;
}

void trace_say_dropped(const json_t *answer)
{
	char n[32];

	if (figure(answer, "dropped"))
		say("trace: %s records had no room: the file was too slow for them",
		    count_format(figure(answer, "dropped"), n));
}

/* ---- recording ---- */

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void on_signal(int number)
{
	interrupted = number;
}

/* Once: a second one ends us as ever. */
static void catch_signals(void)
{
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

static bool enough(void)
{
	return interrupted || (ends_at > 0 && now() >= ends_at);
}

static void show_progress(int fd, int64_t size)
{
	struct stat stat;
	char done[24];

	(void)size;
	if (fstat(fd, &stat) == 0)
		progress_show("%s; Ctrl-C ends the trace",
			      size_format((uint64_t)stat.st_size, done));
}

static void print_result(const struct ask *ask, const json_t *answer)
{
	char records[32], size[24];

	if (ask->json) {
		json_dumpf(answer, stdout, JSON_INDENT(2));
		putchar('\n');
		return;
	}
	printf("%s: %s records, %s\n", ask->output,
	       count_format(figure(answer, "records"), records),
	       size_format((uint64_t)figure(answer, "bytes"), size));
	trace_say_dropped(answer);
}

static int record(const struct ask *ask)
{
	json_t *answer = NULL;
	bool begun = false;
	int fd = trace_create(ask->output), status;

	if (fd < 0)
		return say_failed("trace: %s: %s", ask->output, strerror(-fd));
	catch_signals();
	ends_at = ask->seconds > 0 ? now() + ask->seconds : 0;
	status = ask_trace(ask, ask->words[0], fd, show_progress, enough, &begun, &answer);
	progress_clear();
	close(fd);
	if (status == 0)
		print_result(ask, answer);
	else if (!begun)
		unlink(ask->output);
	else
		say("trace: what is in %s up to then can be read", ask->output);
	json_decref(answer);
	return status;
}

/* ---- converting ---- */

static int convert_to(const struct ask *ask, trace_writer *write, FILE *out)
{
	struct trace_file file;
	int r = trace_file_open(&file, ask->words[0]);

	if (r == -EBADMSG)
		return say_failed("trace: %s: this is no trace", ask->words[0]);
	if (r == -EPROTONOSUPPORT)
		return say_failed("trace: %s: is of another version of upager", ask->words[0]);
	if (r == 0)
		r = write(&file, out);
	trace_file_close(&file);
	if (r == 0 && (fflush(out) || ferror(out)))
		return say_failed("trace: %s: %s", ask->output ? ask->output : "standard output",
				  strerror(errno));
	if (r == -EBADMSG)
		return say_failed("trace: %s: byte %" PRIu64 ": this is no record; what comes before it "
				  "was converted", ask->words[0], file.offset);
	if (r < 0)
		return say_failed("trace: %s: %s", ask->words[0], strerror(-r));
	if (!file.whole)
		say("trace: %s has no end: whoever wrote it was stopped", ask->words[0]);
	return 0;
}

static int convert(const struct ask *ask)
{
	trace_writer *write = !strcmp(ask->convert, "perfetto") ? trace_write_perfetto
			      : !strcmp(ask->convert, "text")	? trace_write_text
								: NULL;
	FILE *out;
	int status, fd;

	if (!write)
		return say_failed("trace: --convert \"%s\" is neither \"perfetto\" nor \"text\"",
				  ask->convert);
	if (!ask->output)
		return convert_to(ask, write, stdout);
	fd = trace_create(ask->output);
	out = fd < 0 ? NULL : fdopen(fd, "w");
	if (!out)
		return say_failed("trace: %s: %s", ask->output, strerror(fd < 0 ? -fd : errno));
	status = convert_to(ask, write, out);
	if (fclose(out) && status == 0)
		status = say_failed("trace: %s: %s", ask->output, strerror(errno));
	return status;
}

int command_trace(int argc, char **argv)
{
	struct ask ask;
	int status = ask_parse(&ask, argc, argv, 1, 1);

	if (status != 0)
		return status;
	if (ask.convert)
		return convert(&ask);
	if (!ask.output)
		return say_failed("trace: to which file? Give -o FILE");
	return record(&ask);
}
