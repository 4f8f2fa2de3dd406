/*
 * Compression of single pages. One thread for each codec, which holds the compressors' memory.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum codec_kind { CODEC_LZ4, CODEC_ZSTD };

struct codec {
	enum codec_kind kind;
	int level; /* 0: the algorithm's own choice; below: faster; above: smaller */
	void *in, *out; /* the algorithm's */
};

/* -EINVAL: the algorithm has no such level; -ENOMEM. */
int codec_init(struct codec *codec, enum codec_kind kind, int level);
void codec_done(struct codec *codec); /* also of what is all zeros */
/* A page into at most `max` bytes; returns how many. 0: it doesn't get that small. */
uint32_t codec_compress(struct codec *codec, const void *page, void *to, uint32_t max);
/* Of any bytes: true if exactly a page came out, else what is there is not worth reading. */
bool codec_decompress(struct codec *codec, const void *from, uint32_t length, void *page);
