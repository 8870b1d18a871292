// Checks a log from outside with Go's checksum database packages, which know nothing of Stagedoor: the note's
// signature, the tree's root, every entry, an inclusion proof of every entry, the growth from kept checkpoints.
//
//	apt-get install golang-go golang-golang-x-mod-dev
//	GO111MODULE=off GOPATH=/usr/share/gocode go run sumdb.go -log https://HOST/v1/audit/log -vkey FILE
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

var (
	logURL  = flag.String("log", "", "what `checkpoint` stands under")
	vkey    = flag.String("vkey", "", "file with the log's key")
	witness = flag.String("witness", "", "file with a witness's key: it must have cosigned")
	secret  = os.Getenv("STAGEDOOR_CLIENT_SECRET")
)

// A log's file, and whether there is one.
func fetch(path string) ([]byte, error) {
	if local := strings.TrimPrefix(*logURL, "file://"); local != *logURL {
		return os.ReadFile(local + "/" + path)
	}
	request, err := http.NewRequest("GET", *logURL+"/"+path, nil)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(path, "tile/entries/") {
		request.Header.Set("Authorization", "Bearer "+secret)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != 200 {
		return nil, fmt.Errorf("%s: %s", path, answer.Status)
	}
	return io.ReadAll(answer.Body)
}

// sumdb writes tile/8/L/…, C2SP tlog-tiles writes tile/L/….
type tiles struct{}

func (tiles) Height() int { return 8 }

func (tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func (tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var out [][]byte
	for _, tile := range wanted {
		data, err := fetch(strings.Replace(tile.Path(), "tile/8/", "tile/", 1))
		if err != nil {
			return nil, err
		}
		out = append(out, data)
	}
	return out, nil
}

// C2SP tlog-cosignature: not in sumdb, a page of its interface.
type cosigner struct {
	name string
	id   uint32
	key  ed25519.PublicKey
}

func (c cosigner) Name() string    { return c.name }
func (c cosigner) KeyHash() uint32 { return c.id }
func (c cosigner) Verify(text, signature []byte) bool {
	if len(signature) != 72 {
		return false
	}
	seconds := binary.BigEndian.Uint64(signature)
	return ed25519.Verify(c.key, []byte(fmt.Sprintf("cosignature/v1\ntime %d\n%s", seconds, text)), signature[8:])
}

func readCosigner(line string) (note.Verifier, error) {
	parts := strings.SplitN(strings.TrimSpace(line), "+", 3)
	if len(parts) != 3 {
		return nil, errors.New("no key of a witness")
	}
	key, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(key) != 33 || key[0] != 4 {
		return nil, errors.New("no key of a witness")
	}
	hash := sha256.Sum256(append([]byte(parts[0]+"\n"), key...))
	return cosigner{parts[0], binary.BigEndian.Uint32(hash[:]), key[1:]}, nil
}

func open(text []byte, verifiers ...note.Verifier) (tlog.Tree, error) {
	opened, err := note.Open(text, note.VerifierList(verifiers...))
	if err != nil {
		return tlog.Tree{}, err
	}
	if len(opened.Sigs) != len(verifiers) {
		return tlog.Tree{}, errors.New("a signature that is demanded is missing")
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 || lines[0] != verifiers[0].Name() {
		return tlog.Tree{}, errors.New("not a checkpoint of this log")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	root, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: root}, err
}

// Every entry against the tree, and an inclusion proof of each.
func entries(tree tlog.Tree, hashes tlog.HashReader) error {
	for first := int64(0); first < tree.N; first += 256 {
		width := tree.N - first
		if width > 256 {
			width = 256
		}
		path := tlog.Tile{H: 8, L: 0, N: first / 256, W: int(width)}.Path()
		bundle, err := fetch(strings.Replace(path, "tile/8/0/", "tile/entries/", 1))
		if err != nil {
			return err
		}
		for i := first; i < first+width; i++ {
			if len(bundle) < 2 || len(bundle) < 2+int(binary.BigEndian.Uint16(bundle)) {
				return fmt.Errorf("entry %d: the bundle is cut", i)
			}
			length := int(binary.BigEndian.Uint16(bundle))
			leaf := tlog.RecordHash(bundle[2 : 2+length])
			bundle = bundle[2+length:]
			proof, err := tlog.ProveRecord(tree.N, i, hashes)
			if err != nil {
				return err
			}
			if err := tlog.CheckRecord(proof, tree.N, tree.Hash, i, leaf); err != nil {
				return fmt.Errorf("entry %d: %w", i, err)
			}
		}
		if len(bundle) != 0 {
			return fmt.Errorf("bundle of entry %d: more than its entries", first)
		}
	}
	return nil
}

func check() error {
	key, err := os.ReadFile(*vkey)
	if err != nil {
		return err
	}
	verifier, err := note.NewVerifier(strings.TrimSpace(string(key)))
	if err != nil {
		return err
	}
	text, err := fetch("checkpoint")
	if err != nil {
		return err
	}
	tree, err := open(text, verifier)
	if err != nil {
		return fmt.Errorf("the checkpoint: %w", err)
	}
	// refuses a tile that does not hash up to the root
	hashes := tlog.TileHashReader(tree, tiles{})
	root, err := tlog.TreeHash(tree.N, hashes)
	if err != nil {
		return err
	}
	if root != tree.Hash {
		return errors.New("the root is not that of the tiles")
	}
	kept := [][]byte{}
	for _, file := range flag.Args() {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		kept = append(kept, text)
	}
	verifiers := []note.Verifier{verifier}
	if *witness != "" {
		line, err := os.ReadFile(*witness)
		if err != nil {
			return err
		}
		cosigner, err := readCosigner(string(line))
		if err != nil {
			return err
		}
		text, err := fetch("witnessed")
		if err != nil {
			return err
		}
		if _, err := open(text, verifier, cosigner); err != nil {
			return fmt.Errorf("the witnessed checkpoint: %w", err)
		}
		kept = append(kept, text)
	}
	for _, text := range kept {
		old, err := open(text, verifiers...)
		if err != nil {
			return fmt.Errorf("a kept checkpoint: %w", err)
		}
		if old.N > tree.N {
			return fmt.Errorf("ROLLBACK: a kept checkpoint has %d entries, the log %d", old.N, tree.N)
		}
		if old.N == 0 {
			continue
		}
		proof, err := tlog.ProveTree(tree.N, old.N, hashes)
		if err != nil {
			return err
		}
		if err := tlog.CheckTree(proof, tree.N, tree.Hash, old.N, old.Hash); err != nil {
			return fmt.Errorf("FORK at %d: %w", old.N, err)
		}
	}
	if secret == "" && !strings.HasPrefix(*logURL, "file://") {
		fmt.Printf("holds: %d hashes, %d kept checkpoints; no entry was looked at\n", tree.N, len(kept))
		return nil
	}
	if err := entries(tree, hashes); err != nil {
		return err
	}
	fmt.Printf("holds: %d entries, %d kept checkpoints\n", tree.N, len(kept))
	return nil
}

func main() {
	flag.Parse()
	if err := check(); err != nil {
		fmt.Fprintln(os.Stderr, "does NOT hold:", strings.TrimSpace(string(bytes.ToValidUTF8([]byte(err.Error()), nil))))
		os.Exit(1)
	}
}
