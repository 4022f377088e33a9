import generated.ApiClient;
import generated.api.BatchesApi;
import generated.api.JobsApi;
import generated.api.OutputApi;
import generated.model.Batch;
import generated.model.BatchSubmission;
import generated.model.BatchSubmissionJobsInner;
import generated.model.Job;
import generated.model.JobSubmission;
import java.math.BigDecimal;
import java.util.List;
import java.util.Map;

/**
 * Uses the Java client of openapi-generator: Use BASE TOKEN. Parameters have places, one more with each that an operation gets: with
 * names (`useSingleRequestParameter`) it does not compile, since `wait()` is every object's.
 */
public class Use {
    public static void main(String[] arguments) throws Exception {
        ApiClient client = new ApiClient();
        client.updateBaseUri(arguments[0]);
        client.setRequestInterceptor(request -> request.header("Authorization", "Bearer " + arguments[1]));

        BigDecimal wait = BigDecimal.valueOf(30);
        JobSubmission submission = new JobSubmission().command(List.of("echo", "hello"));
        Job job = new JobsApi(client).createJob(submission, wait, null, null, null, null, null, null, null, null, null);
        check(job.getState().getValue().equals("succeeded") && job.getExit().getCode() == 0, job);
        String id = job.getId().toString();
        String output = new OutputApi(client).getOutput(id, null, null, null, null, null, null, null, null, null, null, null);
        check(output.equals("hello\n"), output);

        BatchSubmission many = new BatchSubmission()
                .defaults(Map.of("command", List.of("true")))
                .jobs(List.of(new BatchSubmissionJobsInner().key("a").repeat(2)));
        Batch batch = new BatchesApi(client).createBatch(many, wait, null, null, null).getBatch();
        check(batch.getTotal() == 2 && batch.getCounts().get("succeeded") == 2, batch);

        var list = new JobsApi(client).listJobs(null, null, null, null, null, null, null, null, null, null, null, null, null);
        check(list.getJobList().getJobs().size() >= 3, list);
    }

    private static void check(boolean holds, Object what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }
}
