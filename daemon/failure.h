/* A failure told in words: an -errno for the program, a sentence for the person. */
#pragma once

#include <stdarg.h>
#include <stdio.h>

#define FAILURE_SIZE 640

struct failure {
	char text[FAILURE_SIZE];
};

/* Writes the sentence and returns `error`, so that it reads `return fail(f, -EINVAL, "…")`. */
__attribute__((format(printf, 3, 4))) static inline int fail(struct failure *failure, int error,
							     const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(failure->text, sizeof(failure->text), format, args);
	va_end(args);
	return error;
}
