package changelog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// PositionKey is the key under which a replica keeps its [Position] in its own
// database, in the same LevelDB batch as the data (I2). No key of geth's schema
// begins so.
var PositionKey = []byte("drover-position")

// ErrBadPosition means that the stored position's bytes are not a position.
var ErrBadPosition = errors.New("stored position is damaged")

const (
	positionVersion = 1
	positionFixed   = 1 + 1 + 8 + 8 + 8 + 4
)

// Position is how far a database has applied a change log.
type Position struct {
	Cluster  string
	Timeline uint64
	Sequence uint64 // last applied
	// Offset is the Kafka offset of the last frame applied, -1 when unknown (a
	// copied datadir). It saves a search; the sequence decides.
	Offset int64
}

// String returns the position as an operator reads it.
func (p Position) String() string {
	if p.Offset < 0 {
		return fmt.Sprintf("%s timeline %d sequence %d", p.Cluster, p.Timeline, p.Sequence)
	}
	return fmt.Sprintf("%s timeline %d sequence %d (offset %d)", p.Cluster, p.Timeline, p.Sequence, p.Offset)
}

// Marshal encodes the position: version (1 byte), length of the cluster's name
// (1), name, timeline (8), sequence (8), offset (8), CRC-32C of all before (4);
// little endian. Cluster names longer than 255 bytes are cut; [CheckCluster]
// refuses them long before.
func (p Position) Marshal() []byte {
	name := p.Cluster[:min(len(p.Cluster), 255)]
	b := make([]byte, 0, positionFixed+len(name))
	b = append(b, positionVersion, byte(len(name)))
	b = append(b, name...)
	b = binary.LittleEndian.AppendUint64(b, p.Timeline)
	b = binary.LittleEndian.AppendUint64(b, p.Sequence)
	b = binary.LittleEndian.AppendUint64(b, uint64(p.Offset))
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// UnmarshalPosition decodes what Marshal wrote. Errors wrap [ErrBadPosition], or
// [ErrFutureVersion] for a position of a newer release.
func UnmarshalPosition(b []byte) (Position, error) {
	if len(b) == 0 {
		return Position{}, fmt.Errorf("%w: empty", ErrBadPosition)
	}
	if b[0] > positionVersion {
		return Position{}, fmt.Errorf("%w: position has version %d, this release reads up to %d", ErrFutureVersion, b[0], positionVersion)
	}
	if b[0] == 0 || len(b) < positionFixed || len(b) != positionFixed+int(b[1]) {
		return Position{}, fmt.Errorf("%w: %d bytes of version %d", ErrBadPosition, len(b), b[0])
	}
	body, sum := b[:len(b)-4], binary.LittleEndian.Uint32(b[len(b)-4:])
	if crc32.Checksum(body, castagnoli) != sum {
		return Position{}, fmt.Errorf("%w: checksum does not match", ErrBadPosition)
	}
	name := int(b[1])
	rest := body[2+name:]
	return Position{
		Cluster:  string(body[2 : 2+name]),
		Timeline: binary.LittleEndian.Uint64(rest),
		Sequence: binary.LittleEndian.Uint64(rest[8:]),
		Offset:   int64(binary.LittleEndian.Uint64(rest[16:])),
	}, nil
}
