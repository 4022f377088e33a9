package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"time"
)

// What the test runs: starts a job, follows it, stops another.
func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	service := Service{URL: os.Getenv("PROCESSION_URL"), Token: os.Getenv("PROCESSION_TOKEN")}

	job, err := service.Start(ctx, Spec{Script: "for i in 1 2 3; do echo $i; sleep 0.1; done; exit 3"})
	check(err)
	var text strings.Builder
	check(service.Follow(ctx, job.ID, &text))
	job, err = service.Ended(ctx, job.ID)
	check(err)
	fmt.Printf("%q %s %d\n", text.String(), job.State, *job.Exit.Code)

	sleeper, err := service.Start(ctx, Spec{Command: []string{"sleep", "1000"}})
	check(err)
	sleeper, err = service.Stop(ctx, sleeper.ID)
	check(err)
	fmt.Println(sleeper.State)

	nice := 77
	_, err = service.Start(ctx, Spec{Command: []string{"true"}, Nice: &nice})
	var problem *Problem
	if errors.As(err, &problem) {
		fmt.Println(problem.Code)
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
