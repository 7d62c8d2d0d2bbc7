// What a static program of Go does: files, processes, threads, signals. Prints what came out.
package main

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "child" {
		fmt.Println("child", os.Args, os.Getenv("FROM_PARENT"))
		os.Exit(7)
	}
	fmt.Println(os.Args, os.Getenv("GREETING"))
	fmt.Println(os.Executable())
	fmt.Println(os.Getwd())
	filepath.WalkDir("/data", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			fmt.Println(path, err)
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			fmt.Println(path, err)
			return nil
		}
		fmt.Println(path, info.Mode())
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(path)
			fmt.Printf("%d %x %v\n", info.Size(), sha256.Sum256(content), err)
		}
		return nil
	})
	var group sync.WaitGroup
	errors := make(chan error, 64)
	for i := 0; i < 64; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			runtime.LockOSThread()
			for j := 0; j < 20; j++ {
				if _, err := os.ReadFile("/data/small"); err != nil {
					errors <- err
				}
			}
		}()
	}
	group.Wait()
	fmt.Println(len(errors), "errors of threads")
	for i := 0; i < 3; i++ {
		child := exec.Command("/proc/self/exe", "child", fmt.Sprint(i))
		child.Env = append(os.Environ(), "FROM_PARENT=yes")
		output, err := child.CombinedOutput()
		fmt.Printf("%s%v\n", output, err)
	}
	_, err := exec.Command("/no/such/program").Output()
	fmt.Println(err)
	_, err = os.ReadFile("/missing")
	fmt.Println(err)
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGUSR1)
	syscall.Kill(os.Getpid(), syscall.SIGUSR1)
	fmt.Println(<-caught)
	os.Exit(3)
}
