// `serve PORT`: sends back the body of every request. `check IP PORT`: sends bodies side by side and compares.
package main

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

const (
	count = 64
	size  = 200_000
)

func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Write(body)
}

func once(client *http.Client, url string, number int) error {
	body := bytes.Repeat([]byte{byte(number), byte(number >> 8), 42}, size/3)
	response, err := client.Post(url, "application/octet-stream", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	back, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK || !bytes.Equal(back, body) {
		return fmt.Errorf("%d: %s, %d bytes of %d", number, response.Status, len(back), len(body))
	}
	return nil
}

func check(address string) {
	// The interface list is the runtime's own use of netlink; without one it has no addresses.
	if _, err := net.InterfaceAddrs(); err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Timeout: time.Minute}
	failures := make(chan error, count)
	var all sync.WaitGroup
	for number := 0; number < count; number++ {
		all.Add(1)
		go func(number int) {
			defer all.Done()
			if err := once(client, "http://"+address+"/echo", number); err != nil {
				failures <- err
			}
		}(number)
	}
	all.Wait()
	close(failures)
	for err := range failures {
		log.Fatal(err)
	}
	fmt.Println("every byte came back")
}

func main() {
	switch os.Args[1] {
	case "serve":
		// No address: both families, by one socket of IPv6.
		log.Fatal(http.ListenAndServe(":"+os.Args[2], http.HandlerFunc(echo)))
	case "check":
		check(net.JoinHostPort(os.Args[2], os.Args[3]))
	}
}
