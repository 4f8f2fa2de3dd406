#include "tier/codec.h"

#include <errno.h>
#include <lz4.h>
#include <stdlib.h>
#include <zstd.h>

#include "base/util.h"

#define LZ4_LEVEL_MIN (-65536) /* LZ4_ACCELERATION_MAX */

int codec_init(struct codec *codec, enum codec_kind kind, int level)
{
	*codec = (struct codec){.kind = kind, .level = level};
	if (kind == CODEC_LZ4) {
		if (level > 0 || level < LZ4_LEVEL_MIN)
			return -EINVAL;
		codec->in = malloc((size_t)LZ4_sizeofState());
		return codec->in ? 0 : -ENOMEM;
	}
	if (level > ZSTD_maxCLevel() || level < ZSTD_minCLevel())
		return -EINVAL;
	codec->in = ZSTD_createCCtx();
	codec->out = ZSTD_createDCtx();
	if (!codec->in || !codec->out) {
		codec_done(codec);
		return -ENOMEM;
	}
	ZSTD_CCtx_setParameter(codec->in, ZSTD_c_compressionLevel, level);
	ZSTD_CCtx_setParameter(codec->in, ZSTD_c_contentSizeFlag, 0);
	return 0;
}

void codec_done(struct codec *codec)
{
	if (codec->kind == CODEC_LZ4) {
		free(codec->in);
	} else {
		ZSTD_freeCCtx(codec->in);
		ZSTD_freeDCtx(codec->out);
	}
	codec->in = codec->out = NULL;
}

uint32_t codec_compress(struct codec *codec, const void *page, void *to, uint32_t max)
{
	size_t n;
	int r;

	if (codec->kind == CODEC_LZ4) {
		/* A negative level is the acceleration, as in lz4 --fast. */
		r = LZ4_compress_fast_extState(codec->in, page, to, PAGE_SIZE, (int)max,
					       MAX(1, -codec->level));
		return r > 0 ? (uint32_t)r : 0;
	}
	n = ZSTD_compress2(codec->in, to, max, page, PAGE_SIZE);
	return ZSTD_isError(n) ? 0 : (uint32_t)n;
}

bool codec_decompress(struct codec *codec, const void *from, uint32_t length, void *page)
{
	if (codec->kind == CODEC_LZ4)
		return LZ4_decompress_safe(from, page, (int)length, PAGE_SIZE) == PAGE_SIZE;
	return ZSTD_decompressDCtx(codec->out, page, PAGE_SIZE, from, length) == PAGE_SIZE;
}
