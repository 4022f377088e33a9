// Uses the Go client of openapi-generator: go BASE TOKEN.
package main

import (
	"context"
	"fmt"
	"os"

	"generated"
)

func main() {
	configuration := generated.NewConfiguration()
	configuration.Servers = generated.ServerConfigurations{{URL: os.Args[1]}}
	client := generated.NewAPIClient(configuration)
	caller := context.WithValue(context.Background(), generated.ContextAccessToken, os.Args[2])

	submission := generated.JobSubmission{Command: []string{"echo", "hello"}}
	job, _, err := client.JobsAPI.CreateJob(caller).JobSubmission(submission).Wait(30).Execute()
	check(err == nil && job.State == generated.SUCCEEDED && *job.Exit.Get().Code.Get() == 0, err, job)
	output, _, err := client.OutputAPI.GetOutput(caller, job.Id).Execute()
	check(err == nil && output == "hello\n", err, output)

	many := generated.NewBatchSubmission([]generated.BatchSubmissionJobsInner{{
		Key:                  "a",
		Repeat:               *generated.NewNullableInt32(generated.PtrInt32(2)),
		AdditionalProperties: map[string]interface{}{"command": []string{"true"}},
	}})
	batch, _, err := client.BatchesAPI.CreateBatch(caller).BatchSubmission(*many).Wait(30).Execute()
	check(err == nil && batch.Batch != nil && batch.Batch.Total == 2 && batch.Batch.Counts["succeeded"] == 2, err, batch)

	list, _, err := client.JobsAPI.ListJobs(caller).Execute()
	check(err == nil && len(list.JobList.Jobs) >= 3, err, list)
	basic, _, err := client.JobsAPI.ListJobs(caller).View("basic").Execute()
	check(err == nil && len(basic.JobListBasic.Jobs) >= 3, err, basic)
}

func check(holds bool, what ...interface{}) {
	if !holds {
		fmt.Fprintln(os.Stderr, what...)
		os.Exit(1)
	}
}
