package repo

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
)

const (
	// sampleSize of a blob is tried before the whole is compressed, in bytes.
	sampleSize = 8 << 10
	// maxUnpacked bounds what an index, a snapshot or a lock may unfold to, in bytes.
	maxUnpacked = 1 << 30
	// minCompress: shorter blobs are stored plain, their zstd frame would not pay.
	minCompress = 64
)

// compressor compresses with encoders and decoders that the garbage collector
// takes away when they are not used.
type compressor struct {
	level    Compression
	encoders sync.Pool // of *zstd.Encoder
	decoders sync.Pool // of *zstd.Decoder, limited to the capacity of dst
	unpack   sync.Pool // of *zstd.Decoder, limited to maxUnpacked
}

func newCompressor(level Compression) *compressor {
	c := &compressor{level: level}
	c.encoders.New = func() any { return newEncoder(level) }
	c.decoders.New = func() any { return newDecoder(zstd.WithDecodeAllCapLimit(true)) }
	c.unpack.New = func() any { return newDecoder(zstd.WithDecoderMaxMemory(maxUnpacked)) }
	return c
}

// newEncoder: blobs carry their own SHA-256, so no CRC; a window of 1 MiB
// spans the average blob and keeps an encoder at about 3 MiB.
func newEncoder(level Compression) *zstd.Encoder {
	speed := zstd.SpeedFastest
	if level == CompressionMax {
		speed = zstd.SpeedBestCompression
	}
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(speed), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic(err) // only wrong options, and these are constants
	}
	return e
}

func newDecoder(opt zstd.DOption) *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), opt)
	if err != nil {
		panic(err) // only wrong options, and these are constants
	}
	return d
}

// blob appends data, compressed, to dst. It returns false if data is to be
// stored plain, because it would not shrink by at least 1/32.
func (c *compressor) blob(dst, data []byte) ([]byte, bool) {
	if c.level == CompressionOff || len(data) < minCompress {
		return dst, false
	}
	e := c.encoders.Get().(*zstd.Encoder)
	defer c.encoders.Put(e)
	if c.level == CompressionAuto && len(data) >= 8*sampleSize && !shrinks(e, dst, data) {
		return dst, false
	}
	out := e.EncodeAll(data, dst)
	return out, worth(len(out)-len(dst), len(data))
}

// shrinks tries a sample from the beginning and one from the middle.
func shrinks(e *zstd.Encoder, scratch, data []byte) bool {
	for _, at := range []int{len(data) / 2, len(data) / 8} {
		out := e.EncodeAll(data[at:at+sampleSize], scratch)
		if worth(len(out)-len(scratch), sampleSize) {
			return true
		}
	}
	return false
}

func worth(compressed, plain int) bool { return compressed <= plain-plain/32-1 }

// all appends data, always compressed, to dst.
func (c *compressor) all(dst, data []byte) []byte {
	e := c.encoders.Get().(*zstd.Encoder)
	defer c.encoders.Put(e)
	return e.EncodeAll(data, dst)
}

// expandBlob decompresses into buf, whose capacity is at least size, the
// blob's length.
func (c *compressor) expandBlob(buf, data []byte, size int) ([]byte, error) {
	d := c.decoders.Get().(*zstd.Decoder)
	defer c.decoders.Put(d)
	out, err := d.DecodeAll(data, buf[:0:size])
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	if len(out) != size {
		return nil, fmt.Errorf("decompress: %d bytes instead of %d", len(out), size)
	}
	return out, nil
}

// expand decompresses an object whose length is not known.
func (c *compressor) expand(data []byte) ([]byte, error) {
	d := c.unpack.Get().(*zstd.Decoder)
	defer c.unpack.Put(d)
	out, err := d.DecodeAll(data, nil)
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	return out, nil
}
