/* upagerd: the command line. */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon.h"
#include "failure.h"
#include "log.h"

enum { OPTION_CONFIG = 256, OPTION_SOCKET, OPTION_EMBEDDED, OPTION_HELP_CONFIG, OPTION_VERSION };

static const struct option options[] = {
    {"config", required_argument, NULL, OPTION_CONFIG},
    {"socket", required_argument, NULL, OPTION_SOCKET},
    {"embedded", required_argument, NULL, OPTION_EMBEDDED},
    {"help-config", no_argument, NULL, OPTION_HELP_CONFIG},
    {"version", no_argument, NULL, OPTION_VERSION},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static const char usage[] =
    "upagerd [OPTION]...: the page-fault handler of other processes\n"
    "\n"
    "  --config FILE    read FILE, \"-\" for standard input (" UPAGER_CONFIG ")\n"
    "  --socket PATH    the control socket, whatever the configuration says\n"
    "  --embedded FD    serve one `upager run`, which holds the other end of FD\n"
    "  --help-config    print every configuration key\n"
    "  --version        print the version\n"
    "  --help           print this\n"
    "\n"
    "See upagerd(8) and upagerd.json(5).\n";

struct arguments {
	const char *config, *socket;
	int embedded; /* -1 = no */
};

static int parse_fd(const char *text)
{
	char *end;
	long fd;

	errno = 0;
	fd = strtol(text, &end, 10);
	return errno || end == text || *end || fd < 0 || fd > INT_MAX ? -1 : (int)fd;
}

/* -1 = go on, else the exit status. */
static int parse_option(int option, struct arguments *arguments)
{
	switch (option) {
	case OPTION_CONFIG:
		arguments->config = optarg;
		return -1;
	case OPTION_SOCKET:
		arguments->socket = optarg;
		if (*optarg == '/')
			return -1;
		log_error("--socket: expected an absolute path, got \"%s\"", optarg);
		return 2;
	case OPTION_EMBEDDED:
		arguments->embedded = parse_fd(optarg);
		if (arguments->embedded >= 0)
			return -1;
		log_error("--embedded: expected the number of an open descriptor, got \"%s\"",
			  optarg);
		return 2;
	case OPTION_HELP_CONFIG:
		conf_document(stdout);
		return 0;
	case OPTION_VERSION:
		puts("upagerd " UPAGER_VERSION);
		return 0;
	case 'h':
		fputs(usage, stdout);
		return 0;
	default:
		fputs("Try upagerd --help.\n", stderr);
		return 2;
	}
}

static int parse_arguments(int argc, char **argv, struct arguments *arguments)
{
	int option, status = -1;

	while (status < 0 && (option = getopt_long(argc, argv, "h", options, NULL)) != -1)
		status = parse_option(option, arguments);
	if (status < 0 && optind < argc) {
		log_error("unexpected argument \"%s\" (try --help)", argv[optind]);
		return 2;
	}
	return status;
}

/* An embedded daemon must not share the system's swap: without --config it runs on defaults. */
static const char *config_path(const struct arguments *arguments)
{
	if (arguments->config)
		return arguments->config;
	if (arguments->embedded >= 0 || access(UPAGER_CONFIG, F_OK) < 0)
		return NULL;
	return UPAGER_CONFIG;
}

int main(int argc, char **argv)
{
	struct arguments arguments = {.embedded = -1};
	static struct daemon daemon;
	struct failure failure;
	int r, status = parse_arguments(argc, argv, &arguments);

	if (status >= 0)
		return status;
	daemon.notify.fd = arguments.embedded;
	daemon.embedded = arguments.embedded >= 0;
	daemon.socket = arguments.socket;
	log_init(daemon.embedded);
	if (daemon.embedded)
		setsid(); /* a ^C at the terminal is for the program, not for its pager */
	r = conf_load(config_path(&arguments), &daemon.conf, &failure);
	if (r >= 0) {
		r = daemon_run(&daemon, &failure);
		conf_done(&daemon.conf);
	}
	if (r < 0) {
		log_error("%s", failure.text);
		notify_failed(&daemon.notify, failure.text);
	}
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
