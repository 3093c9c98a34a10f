package ociengine

import (
	"os"
	"testing"

	"github.com/google/uuid"

	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/internal/sandbox/sandboxtest"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

// BenchmarkPod measures the life of a pod of one process that does nothing.
func BenchmarkPod(b *testing.B) {
	testenv.Root(b)
	root := b.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		b.Fatal(err)
	}
	sandboxtest.InstallProbe(b, sandboxtest.BuildProbe(b), root)
	engine, err := New(Config{Runtime: "runc", StateDir: b.TempDir(), Scope: testScope})
	if err != nil {
		b.Fatal(err)
	}
	process := sandbox.Process{App: "a", Args: []string{sandboxtest.ProbePath, "exit", "0"}, Dir: "/", Env: []string{"HOME=/"}}
	for b.Loop() {
		pod := sandbox.Pod{
			ID: uuid.NewString(), Hostname: "bench", Network: sandbox.NetworkNone,
			Apps: []sandbox.App{{Name: "a", Root: root}},
		}
		if err := engine.Create(b.Context(), pod); err != nil {
			b.Fatal(err)
		}
		task, err := engine.Start(b.Context(), pod.ID, process)
		if err != nil {
			b.Fatal(err)
		}
		if exit, err := task.Wait(b.Context()); err != nil || exit != (sandbox.Exit{}) {
			b.Fatal(exit, err)
		}
		if err := engine.Destroy(b.Context(), pod.ID); err != nil {
			b.Fatal(err)
		}
	}
}
