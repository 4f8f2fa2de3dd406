#include "places.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "terminal.h"

#define SYSTEM_SOCKET "/run/upager/" PLACE_SOCKET_NAME

static char *formatted(const char *format, ...) __attribute__((format(printf, 1, 2)));

static char *formatted(const char *format, ...)
{
	va_list args;
	char *text;
	int n;

	va_start(args, format);
	n = vasprintf(&text, format, args);
	va_end(args);
	if (n < 0) {
		say("out of memory");
		exit(EXIT_UPAGER);
	}
	return text;
}

/* The directory of this executable. */
static const char *own_directory(void)
{
	static char path[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

	if (n <= 0)
		return ".";
	path[n] = 0;
	*strrchr(path, '/') = 0;
	return path[0] ? path : "/";
}

/* First of the environment's choice, a NULL-ended list relative to us, and the installed place. */
static char *find(const char *what, const char *variable, const char *const *relative,
		  const char *installed, int mode)
{
	const char *chosen = getenv(variable);

	if (chosen && *chosen) {
		if (access(chosen, mode) == 0)
			return formatted("%s", chosen);
		say("%s, which %s names: %s", chosen, variable, strerror(errno));
		return NULL;
	}
	for (; *relative; relative++) {
		char *path = formatted("%s/%s", own_directory(), *relative), *real;

		real = access(path, mode) == 0 ? realpath(path, NULL) : NULL;
		free(path);
		if (real)
			return real;
	}
	if (access(installed, mode) == 0)
		return formatted("%s", installed);
	say("%s is neither beside %s nor at %s: build or install upager completely, or name it "
	    "in %s",
	    what, own_directory(), installed, variable);
	return NULL;
}

char *place_daemon(void)
{
	static const char *const relative[] = {"upagerd", "../daemon/upagerd", "../sbin/upagerd",
					       NULL};

	return find("the daemon upagerd", "UPAGERD", relative, UPAGER_SBINDIR "/upagerd", X_OK);
}

char *place_preload(void)
{
	static const char *const relative[] = {"libupager-preload.so", NULL};
	char *path = find("the library libupager-preload.so", "UPAGER_PRELOAD", relative,
			  UPAGER_LIBDIR "/libupager-preload.so", R_OK);

	if (path && strpbrk(path, " :")) {
		say("%s: the loader does not take a library whose path has a space or a colon; "
		    "install upager elsewhere",
		    path);
		free(path);
		return NULL;
	}
	if (path && path[0] != '/') {
		char *real = realpath(path, NULL);

		free(path);
		path = real;
	}
	return path;
}

/* $XDG_RUNTIME_DIR, if it is a directory of ours. */
static const char *user_runtime(void)
{
	const char *path = getenv("XDG_RUNTIME_DIR");
	struct stat st;

	if (!path || path[0] != '/' || stat(path, &st) < 0)
		return NULL;
	return S_ISDIR(st.st_mode) && st.st_uid == geteuid() ? path : NULL;
}

char *place_runs(void)
{
	const char *runtime = user_runtime();

	if (geteuid() == 0)
		return formatted("/run/upager-run");
	if (runtime)
		return formatted("%s/upager-run", runtime);
	return formatted("/tmp/upager-run-%u", geteuid());
}

/* A directory in a place where others may write is ours only if nobody else made it. */
static bool trusted(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() &&
	       !(st.st_mode & (S_IWGRP | S_IWOTH));
}

char *place_make_runs(void)
{
	char *path = place_runs();

	if (mkdir(path, 0711) < 0 && errno != EEXIST) {
		say("cannot make the directory %s for a private daemon: %s", path,
		    strerror(errno));
	} else if (!trusted(path)) {
		say("%s, where private daemons run, is not a directory that only you can write; "
		    "remove it",
		    path);
	} else {
		if (chmod(path, geteuid() == 0 ? 0755 : 0711) == 0)
			return path;
		say("%s: %s", path, strerror(errno));
	}
	free(path);
	return NULL;
}

static void add(struct places *places, char *path)
{
	places->path = reallocarray(places->path, places->n + 1, sizeof(*places->path));
	if (!places->path) {
		say("out of memory");
		exit(EXIT_UPAGER);
	}
	places->path[places->n++] = path;
}

/* Run directories hold their daemon's socket, or a link to where it is. */
static void add_embedded(struct places *places)
{
	char *runs = place_runs();
	DIR *dir = trusted(runs) ? opendir(runs) : NULL;
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		char *path = formatted("%s/%s/" PLACE_SOCKET_NAME, runs, entry->d_name);

		if (entry->d_name[0] != '.' && access(path, F_OK) == 0)
			add(places, path);
		else
			free(path);
	}
	if (dir)
		closedir(dir);
	free(runs);
}

void places_sockets(struct places *ret, bool embedded_too)
{
	const char *runtime = user_runtime();

	*ret = (struct places){0};
	add(ret, formatted(SYSTEM_SOCKET));
	if (geteuid() != 0 && runtime)
		add(ret, formatted("%s/upager/" PLACE_SOCKET_NAME, runtime));
	if (embedded_too)
		add_embedded(ret);
}

void places_done(struct places *places)
{
	for (size_t i = 0; i < places->n; i++)
		free(places->path[i]);
	free(places->path);
	*places = (struct places){0};
}
