package snapshot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

// pieceSize is where files are cut. Tables of LevelDB are smaller and so one piece each.
const pieceSize = 64 << 20

// sender turns files into objects of the store. What the store holds already, by checksum, is not sent again.
type sender struct {
	store Store
	keys  keys
	link  *DirStore // set: tables become hard links in it
	zstd  *zstd.Encoder
	sums  *sumCache
	meter *meter
	group *errgroup.Group // bounds how many pieces are in memory
	ctx   context.Context

	buffers sync.Pool // of *[]byte

	mu     sync.Mutex
	have   map[[32]byte]string // the endings of content objects in the store, as far as known
	local  *DirStore           // set: looked up one by one, which is quicker than a listing
	dirs   map[string]bool     // of local, in which objects were made
	sent   atomic.Int64        // objects
	linked atomic.Int64        // new links
	reused atomic.Int64        // bytes that were in the store already
}

// loadObjects lists the content that the store holds.
func loadObjects(ctx context.Context, store Store, k keys) (map[[32]byte]string, error) {
	have := make(map[[32]byte]string)
	for o, err := range store.List(ctx, k.objects()) {
		if err != nil {
			return nil, err
		}
		if sum := contentSum(o.Key); sum != "" {
			var key [32]byte
			if _, err := hex.Decode(key[:], []byte(sum)); err == nil {
				have[key] = o.Key[len(o.Key)-len(plainEnding):]
			}
		}
	}
	return have, nil
}

// file sends the first size bytes of a file, piece by piece, and returns the pieces, which are complete once the group has
// ended. f stays open until done is called.
func (s *sender) file(f *os.File, size int64, done func()) ([]Piece, error) {
	fi, err := f.Stat()
	if err != nil {
		done()
		return nil, err
	}
	pieces := make([]Piece, (size+pieceSize-1)/pieceSize)
	var left atomic.Int64
	left.Store(int64(len(pieces)))
	if len(pieces) == 0 {
		done()
	}
	for i := range pieces {
		offset := int64(i) * pieceSize
		n := min(pieceSize, size-offset)
		s.group.Go(func() (err error) {
			defer func() {
				if left.Add(-1) == 0 {
					done()
				}
			}()
			pieces[i], err = s.piece(f, stampOf(fi, offset), offset, n)
			if err != nil && s.ctx.Err() != nil {
				err = context.Cause(s.ctx)
			}
			return err
		})
	}
	return pieces, nil
}

// piece sends one part of a file, unless the store is known to hold it.
func (s *sender) piece(f *os.File, at stamp, offset, n int64) (Piece, error) {
	if err := s.ctx.Err(); err != nil {
		return Piece{}, err
	}
	whole := at.size == uint64(offset+n) || n == pieceSize // else the file has grown since, and the stamp speaks of more
	if sum, ok := s.sums.get(at); ok && whole {
		if ending, ok := s.held(sum); ok {
			s.meter.done.Add(n)
			s.reused.Add(n)
			return contentPiece(sum, ending, n), nil
		}
	}
	buffer := s.buffer(n)
	defer s.buffers.Put(buffer)
	body := (*buffer)[:n]
	if _, err := f.ReadAt(body, offset); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // cut while we read: the copier looks at it again
		}
		return Piece{}, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	sum := sha256.Sum256(body)
	if whole {
		s.sums.add(at, sum)
	}
	ending, err := s.content(sum, body)
	if err != nil {
		return Piece{}, err
	}
	s.meter.done.Add(n)
	return contentPiece(sum, ending, n), nil
}

// buffer returns one of at least n bytes: a piece each would keep the collector busy.
func (s *sender) buffer(n int64) *[]byte {
	if b, ok := s.buffers.Get().(*[]byte); ok && int64(cap(*b)) >= n {
		return b
	}
	b := make([]byte, max(n, 1<<20))
	return &b
}

func contentPiece(sum [32]byte, ending string, n int64) Piece {
	digits := hex.EncodeToString(sum[:])
	return Piece{Object: contentKey(digits, ending), Size: n, SHA256: digits}
}

func (s *sender) held(sum [32]byte) (ending string, ok bool) {
	s.mu.Lock()
	ending, ok = s.have[sum]
	s.mu.Unlock()
	if ok || s.local == nil {
		return ending, ok
	}
	for _, ending := range []string{plainEnding, zstdEnding} {
		key := s.keys.object(contentKey(hex.EncodeToString(sum[:]), ending))
		if fi, err := os.Stat(s.local.path(key)); err == nil && fi.Mode().IsRegular() {
			s.syncLater(key) // a killed run may have put it there
			return ending, true
		}
	}
	return "", false
}

// content puts one object, compressed where that is worth it.
func (s *sender) content(sum [32]byte, body []byte) (ending string, err error) {
	if ending, ok := s.held(sum); ok {
		s.reused.Add(int64(len(body)))
		return ending, nil
	}
	ending, packed := plainEnding, body
	if s.zstd != nil {
		if z := s.zstd.EncodeAll(body, make([]byte, 0, len(body))); len(z) < len(body)*97/100 {
			ending, packed = zstdEnding, z
		}
	}
	key := s.keys.object(contentKey(hex.EncodeToString(sum[:]), ending))
	put := s.store.Put
	if s.local != nil {
		put = s.local.putWhole
		s.syncLater(key)
	}
	if err := put(s.ctx, key, newBody(packed), int64(len(packed))); err != nil {
		return "", err
	}
	s.sent.Add(1)
	s.meter.moved.Add(int64(len(packed)))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.have[sum] = ending
	return ending, nil
}

// table sends a table: as a hard link where the store is on its file system.
func (s *sender) table(f *os.File, size int64) ([]Piece, error) {
	if s.link != nil {
		fi, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, err
		}
		name := linkKey(fi)
		fresh, err := s.link.linkTable(f, s.keys.object(name))
		if err == nil {
			f.Close()
			if fresh {
				s.linked.Add(1)
			} else {
				s.reused.Add(size)
			}
			s.meter.done.Add(size)
			s.syncLater(s.keys.object(name))
			return []Piece{{Object: name, Size: size}}, nil
		}
		if !errors.Is(err, errNoLink) {
			f.Close()
			return nil, err
		}
	}
	return s.file(f, size, func() { f.Close() })
}

// linkKey names a table by its inode, time and size. As long as the store has the link, no other file can have that inode.
func linkKey(fi os.FileInfo) string {
	inode := fi.Sys().(*syscall.Stat_t).Ino
	return fmt.Sprintf("links/%02x/%x-%x-%d%s", inode&0xff, inode, fi.ModTime().UnixNano(), fi.Size(), linkEnding)
}

// syncLater notes the directory of an object in a directory store. One sync for all objects in it is enough: no manifest
// names them yet.
func (s *sender) syncLater(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dirs[filepath.Dir(s.local.path(key))] = true
}

// syncDirs makes the names of new objects durable.
func (s *sender) syncDirs() error {
	for dir := range s.dirs {
		if err := syncDir(dir); err != nil {
			return s.local.fail(dir, err)
		}
	}
	return nil
}

// errNoLink means: a hard link cannot be made, the content has to be sent.
var errNoLink = errors.New("no hard link possible")

// linkTable gives an open file a second name in the store; fresh is false when it had it already. errNoLink when the
// store is on another file system, the file has too many links, or another file has the name.
func (s *DirStore) linkTable(f *os.File, key string) (fresh bool, err error) {
	to := s.path(key)
	s.at("link")
	err = os.Link(f.Name(), to)
	if errors.Is(err, fs.ErrNotExist) {
		if err := s.makeDir(filepath.Dir(to)); err != nil {
			return false, s.fail(key, err)
		}
		err = os.Link(f.Name(), to)
	}
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, fs.ErrExist):
		mine, err := f.Stat()
		if err != nil {
			return false, err
		}
		theirs, err := os.Stat(to)
		if err != nil {
			return false, s.fail(key, err)
		}
		if os.SameFile(mine, theirs) {
			return false, nil
		}
		return false, errNoLink
	case errors.Is(err, syscall.EXDEV), errors.Is(err, syscall.EMLINK), errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EOPNOTSUPP):
		return false, errNoLink
	}
	return false, s.fail(key, err)
}
