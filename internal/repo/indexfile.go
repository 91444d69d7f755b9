package repo

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"drover/internal/repo/crypto"
	"drover/internal/repo/format"
	"drover/internal/repo/pack"
)

// indexFile is the content of an object below index/.
//
// Objects that name others as superseded (restic of old wrote such) are read
// like all: listing a pack twice does no harm.
type indexFile struct {
	Packs []indexPack
}

type indexPack struct {
	ID    format.ID
	Blobs []pack.Blob
}

type indexFileJSON struct {
	Packs []struct {
		ID    format.ID `json:"id"`
		Blobs []struct {
			ID           format.ID `json:"id"`
			Type         string    `json:"type"`
			Offset       uint32    `json:"offset"`
			Length       uint32    `json:"length"`
			Uncompressed uint32    `json:"uncompressed_length"`
		} `json:"blobs"`
	} `json:"packs"`
}

var errIndex = errors.New("invalid index")

// decodeIndex reads an index object's JSON.
func decodeIndex(data []byte) (indexFile, error) {
	if file, ok := scanIndex(data); ok {
		return file, nil
	}
	return decodeAnyIndex(data)
}

// decodeAnyIndex reads whatever JSON it is.
func decodeAnyIndex(data []byte) (indexFile, error) {
	var in indexFileJSON
	if err := json.Unmarshal(data, &in); err != nil {
		return indexFile{}, fmt.Errorf("%w: %w", errIndex, err)
	}
	out := indexFile{Packs: make([]indexPack, 0, len(in.Packs))}
	for _, p := range in.Packs {
		if p.ID.IsZero() {
			return indexFile{}, fmt.Errorf("%w: pack without id", errIndex)
		}
		blobs := make([]pack.Blob, 0, len(p.Blobs))
		for _, b := range p.Blobs {
			blob := pack.Blob{Offset: b.Offset, Length: b.Length, Uncompressed: b.Uncompressed}
			blob.ID = b.ID
			switch b.Type {
			case "data":
				blob.Type = format.DataBlob
			case "tree":
				blob.Type = format.TreeBlob
			default:
				return indexFile{}, fmt.Errorf("%w: blob of type %.20q", errIndex, b.Type)
			}
			if blob.ID.IsZero() || blob.Length < crypto.Overhead {
				return indexFile{}, fmt.Errorf("%w: pack %s holds blob %q of %d bytes", errIndex, p.ID.Short(), blob.ID, blob.Length)
			}
			blobs = append(blobs, blob)
		}
		out.Packs = append(out.Packs, indexPack{p.ID, blobs})
	}
	return out, nil
}

// encodeIndex writes the JSON of an index object.
func encodeIndex(packs []indexPack) []byte {
	size := 16
	for _, p := range packs {
		size += 100 + 170*len(p.Blobs)
	}
	out := make([]byte, 0, size)
	out = append(out, `{"packs":[`...)
	for i, p := range packs {
		if i > 0 {
			out = append(out, ',')
		}
		out = appendPack(out, p)
	}
	return append(out, `]}`...)
}

func appendPack(out []byte, p indexPack) []byte {
	out = append(out, `{"id":"`...)
	out = hex.AppendEncode(out, p.ID[:])
	out = append(out, `","blobs":[`...)
	for i, b := range p.Blobs {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, `{"id":"`...)
		out = hex.AppendEncode(out, b.ID[:])
		out = append(out, `","type":"`...)
		out = append(out, b.Type.String()...)
		out = append(out, `","offset":`...)
		out = strconv.AppendUint(out, uint64(b.Offset), 10)
		out = append(out, `,"length":`...)
		out = strconv.AppendUint(out, uint64(b.Length), 10)
		if b.Uncompressed != 0 {
			out = append(out, `,"uncompressed_length":`...)
			out = strconv.AppendUint(out, uint64(b.Uncompressed), 10)
		}
		out = append(out, '}')
	}
	return append(out, `]}`...)
}
