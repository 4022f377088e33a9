// The views that are seldom the first that is looked at: they come when one of them is.

export { Access } from "./Access.tsx";
export { Checkup } from "./Checkup.tsx";
export { SettingsView } from "./Settings.tsx";
export { Events } from "./Events.tsx";
export { Attempts } from "./job/Attempts.tsx";
export { EditDialog } from "./job/EditDialog.tsx";
export { SignalDialog } from "./job/SignalDialog.tsx";
export { Files } from "./job/Files.tsx";
export { Ports } from "./job/Ports.tsx";
export { InputView } from "./job/InputView.tsx";
export { SpecView } from "./job/SpecView.tsx";
export { Queues } from "./queues/Queues.tsx";
export { Nodes } from "./nodes/Nodes.tsx";
export { Run } from "./run/Run.tsx";
export { BatchPage } from "./batches/BatchPage.tsx";
export { Batches } from "./batches/Batches.tsx";
export { SchedulePage } from "./schedules/SchedulePage.tsx";
export { Schedules } from "./schedules/Schedules.tsx";
