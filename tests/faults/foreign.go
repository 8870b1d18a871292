// Verifies the live log with Go's own implementation of its formats, golang.org/x/mod/sumdb:
//
//	LOG_SECRET=sk_… foreign URL VKEY-FILE RECEIPTS.json
//
// The checkpoint's signature, every leaf against the entry it hashes, the root from the leaves; each receipt's
// signature and inclusion proof, each receipt's root against the tree, and consistency from one to the next.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type receipt struct {
	Index int64  `json:"index"`
	Proof string `json:"proof"`
}

// hashes are the log's stored hashes, in tlog's own numbering.
type hashes []tlog.Hash

func (h hashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, at := range indexes {
		if at >= int64(len(h)) {
			return nil, fmt.Errorf("no hash %d", at)
		}
		out[i] = h[at]
	}
	return out, nil
}

func main() {
	said, err := run(os.Args[1], os.Args[2], os.Args[3])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(said)
}

func run(url, keyFile, receiptFile string) (string, error) {
	vkey, err := os.ReadFile(keyFile)
	if err != nil {
		return "", err
	}
	verifier, err := note.NewVerifier(strings.TrimSpace(string(vkey)))
	if err != nil {
		return "", err
	}
	text, err := get(url + "/v1/audit/log/checkpoint")
	if err != nil {
		return "", err
	}
	tree, err := open(string(text), verifier)
	if err != nil {
		return "", err
	}
	stored, err := fetch(url, tree.N)
	if err != nil {
		return "", err
	}
	if err := sameRoot(tree, stored); err != nil {
		return "", err
	}
	data, err := os.ReadFile(receiptFile)
	if err != nil {
		return "", err
	}
	var receipts []receipt
	if err := json.Unmarshal(data, &receipts); err != nil {
		return "", err
	}
	trees := []tlog.Tree{tree}
	for _, r := range receipts {
		seen, err := included(r, verifier, stored)
		if err != nil {
			return "", fmt.Errorf("receipt of index %d: %w", r.Index, err)
		}
		trees = append(trees, seen)
	}
	pairs, err := consistent(trees, stored)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d entries, %d receipts, %d consistency proofs", tree.N, len(receipts), pairs), nil
}

func get(url string) ([]byte, error) {
	request, err := http.NewRequest("GET", url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+os.Getenv("LOG_SECRET"))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != 200 {
		err = fmt.Errorf("%s: %s", url, response.Status)
	}
	return body, err
}

// open reads a checkpoint that verifier's key signed.
func open(text string, verifier note.Verifier) (tlog.Tree, error) {
	opened, err := note.Open([]byte(text), note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 3 || lines[0] != verifier.Name() {
		return tlog.Tree{}, fmt.Errorf("no checkpoint of %s", verifier.Name())
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return tlog.Tree{}, fmt.Errorf("no root in the checkpoint")
	}
	return tlog.Tree{N: size, Hash: tlog.Hash(*(*[tlog.HashSize]byte)(root))}, nil
}

// fetch reads every leaf and the entry it hashes.
func fetch(url string, size int64) (hashes, error) {
	var stored hashes
	for n := int64(0); n*256 < size; n++ {
		width := size - n*256
		path := tilePath(n)
		if width < 256 {
			path += fmt.Sprintf(".p/%d", width)
		} else {
			width = 256
		}
		leaves, err := get(url + "/v1/audit/log/tile/0/" + path)
		if err != nil {
			return nil, err
		}
		bundle, err := get(url + "/v1/audit/log/tile/entries/" + path)
		if err != nil {
			return nil, err
		}
		if int64(len(leaves)) != width*tlog.HashSize {
			return nil, fmt.Errorf("tile %d has %d bytes", n, len(leaves))
		}
		for i := int64(0); i < width; i++ {
			if len(bundle) < 2 || len(bundle) < 2+int(binary.BigEndian.Uint16(bundle)) {
				return nil, fmt.Errorf("bundle %d ends early", n)
			}
			length := int(binary.BigEndian.Uint16(bundle))
			leaf := tlog.RecordHash(bundle[2 : 2+length])
			bundle = bundle[2+length:]
			if string(leaf[:]) != string(leaves[i*tlog.HashSize:(i+1)*tlog.HashSize]) {
				return nil, fmt.Errorf("entry %d is not what its leaf says", n*256+i)
			}
			more, err := tlog.StoredHashesForRecordHash(n*256+i, leaf, stored)
			if err != nil {
				return nil, err
			}
			stored = append(stored, more...)
		}
	}
	return stored, nil
}

func tilePath(n int64) string {
	path := fmt.Sprintf("%03d", n%1000)
	for n >= 1000 {
		n /= 1000
		path = fmt.Sprintf("x%03d/%s", n%1000, path)
	}
	return path
}

func sameRoot(tree tlog.Tree, stored hashes) error {
	root, err := tlog.TreeHash(tree.N, stored)
	if err == nil && root != tree.Hash {
		err = fmt.Errorf("FORK: the first %d entries have another root", tree.N)
	}
	return err
}

// included checks a c2sp.org/tlog-proof@v1 against the tree and by itself.
func included(r receipt, verifier note.Verifier, stored hashes) (tlog.Tree, error) {
	head, checkpoint, found := strings.Cut(r.Proof, "\n\n")
	lines := strings.Split(head, "\n")
	if !found || len(lines) < 2 || lines[0] != "c2sp.org/tlog-proof@v1" || lines[1] != fmt.Sprintf("index %d", r.Index) {
		return tlog.Tree{}, fmt.Errorf("no receipt: %q", r.Proof)
	}
	tree, err := open(checkpoint, verifier)
	if err != nil {
		return tree, err
	}
	var proof tlog.RecordProof
	for _, line := range lines[2:] {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return tree, err
		}
		proof = append(proof, hash)
	}
	leaf, err := stored.ReadHashes([]int64{tlog.StoredHashIndex(0, r.Index)})
	if err != nil {
		return tree, fmt.Errorf("ROLLBACK: the entry is gone")
	}
	return tree, tlog.CheckRecord(proof, tree.N, tree.Hash, r.Index, leaf[0])
}

// consistent checks every seen tree against the log, and the proofs from each to the next.
func consistent(trees []tlog.Tree, stored hashes) (int, error) {
	sort.Slice(trees, func(a, b int) bool { return trees[a].N < trees[b].N })
	pairs := 0
	for i, tree := range trees {
		if err := sameRoot(tree, stored); err != nil {
			return pairs, err
		}
		if i == 0 || trees[i-1].N == tree.N {
			continue
		}
		proof, err := tlog.ProveTree(tree.N, trees[i-1].N, stored)
		if err != nil {
			return pairs, err
		}
		if err := tlog.CheckTree(proof, tree.N, tree.Hash, trees[i-1].N, trees[i-1].Hash); err != nil {
			return pairs, err
		}
		pairs++
	}
	return pairs, nil
}
