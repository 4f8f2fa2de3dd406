#include "places.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "terminal.h"

#define SOCKET_NAME     "upagerd.sock"
#define SYSTEM_SOCKET   "/run/upager/" SOCKET_NAME
#define EMBEDDED_PARENT "/dev/shm"

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

static void add(struct places *places, char *path)
{
	places->path = reallocarray(places->path, places->n + 1, sizeof(*places->path));
	if (!places->path) {
		say("out of memory");
		exit(EXIT_UPAGER);
	}
	places->path[places->n++] = path;
}

/* An embedded daemon lives in a directory of its own, EMBEDDED_PARENT/upager-*. Others may make
 * such names there too: only our own user's are asked. */
static void add_embedded(struct places *places)
{
	DIR *dir = opendir(EMBEDDED_PARENT);
	struct dirent *entry;
	struct stat st;

	while (dir && (entry = readdir(dir))) {
		char *path;

		if (strncmp(entry->d_name, "upager-", 7) ||
		    fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    !S_ISDIR(st.st_mode) || st.st_uid != geteuid())
			continue;
		path = formatted(EMBEDDED_PARENT "/%s/" SOCKET_NAME, entry->d_name);
		if (access(path, F_OK) == 0)
			add(places, path);
		else
			free(path);
	}
	if (dir)
		closedir(dir);
}

void places_sockets(struct places *ret, bool embedded_too)
{
	const char *runtime = user_runtime();

	*ret = (struct places){0};
	add(ret, formatted(SYSTEM_SOCKET));
	if (geteuid() != 0 && runtime)
		add(ret, formatted("%s/upager/" SOCKET_NAME, runtime));
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
