// SPDX-License-Identifier: Apache-2.0
internal import Penstock

extension Call {
  func startMessageMoveTask(_ fields: Fields) throws(SQSError) {
    let source = try fields.string("SourceArn")
    let destination = try fields.string("DestinationArn")
    let rate = try fields.integer("MaxNumberOfMessagesPerSecond")
    let sourceARN = try moveARN(source, "SourceArn")
    let destinationARN = try destination.map { (text) throws(SQSError) in
      try moveARN(text, "DestinationArn")
    }
    let queue = try moveQueue(sourceARN, "SourceArn", action.rawValue)
    guard !store.deadLetterSources(of: queue.name, limit: 1).isEmpty else {
      throw .invalid("Source queue must be configured as a Dead Letter Queue.")
    }
    var target: QueueListing?
    if destinationARN == nil { try authoriseSources(of: queue.name) }
    if let destinationARN {
      guard source != destination else {
        throw .invalid("Source queue arn and destination queue arn cannot be the same.")
      }
      target = try moveQueue(destinationARN, "DestinationArn", "SendMessage")
    }
    if let target, target.settings.isFIFO != queue.settings.isFIFO {
      throw .invalid("The source queue and destination queue must be of the same queue type.")
    }
    if let rate, !(1...500).contains(rate) {
      throw .invalid(
        "Value for parameter MaxNumberOfMessagesPerSecond is invalid. Reason: You must enter a "
          + "number that's between 1 and 500.")
    }
    store.startMoveTask(from: queue.id, to: target?.id, maximumPerSecond: rate) { result in
      switch result {
      case .success(let task):
        finish { $0.member("TaskHandle", handle(of: task, queue.name)) }
      case .failure(let error) where error.code == .moveTaskActive:
        fail(
          .invalid(
            "There is already a task running. Only one active task is allowed for a source queue "
              + "arn at a given time."))
      case .failure(let error): fail(SQSError(error))
      }
    }
  }

  func listMessageMoveTasks(_ fields: Fields) throws(SQSError) {
    let source = try fields.string("SourceArn")
    let limit = try fields.integer("MaxResults") ?? 1
    let queue = try moveQueue(moveARN(source, "SourceArn"), "SourceArn", action.rawValue)
    guard (1...10).contains(limit) else {
      throw .invalid(
        "Value for parameter MaxResults is invalid. Reason: You must enter a number that's "
          + "between 1 and 10.")
    }
    let tasks = store.moveTasks(of: queue.id).prefix(limit)
    settle {
      finish { writer in
        writer.structures(
          .init("Results", "ListMessageMoveTasksResultEntry"), tasks, evenEmpty: true
        ) { task, writer in
          write(task, queue.name, to: &writer)
        }
      }
    }
  }

  func cancelMessageMoveTask(_ fields: Fields) throws(SQSError) {
    guard let text = try fields.string("TaskHandle"), !text.isEmpty else {
      throw .missing("TaskHandle")
    }
    guard text.utf8.count <= 2048, let bytes = Base64.decode(Array(text.utf8)),
      let handle = RedrivePolicy.object(String(decoding: bytes, as: UTF8.self)),
      let taskID = handle.member("taskId")?.string, let arn = handle.member("sourceArn")?.string
    else { throw .invalid("Value for parameter TaskHandle is invalid.") }
    let queue = try moveQueue(moveARN(arn, "SourceArn"), "SourceArn", action.rawValue)
    guard
      let task = store.moveTasks(of: queue.id).first(where: { $0.id.description == taskID })
    else { throw SQSError(.resourceNotFound, "Task does not exist.") }
    store.cancelMoveTask(task.id, from: queue.id) { result in
      switch result {
      case .success(let task):
        finish { $0.number("ApproximateNumberOfMessagesMoved", task.moved) }
      case .failure(let error) where error.code == .moveTaskOver:
        fail(.invalid("Only active tasks can be cancelled."))
      case .failure(let error): fail(SQSError(error))
      }
    }
  }

  /// Messages that go back to where they came from are sent to queues that have this dead-letter
  /// queue.
  private func authoriseSources(of name: String) throws(SQSError) {
    guard caller.access != nil else { return }
    for source in store.deadLetterSources(of: name) {
      guard let queue = store.lookup(source) else { continue }
      let (account, name) = configuration.owner(of: source)
      try authorise("SendMessage", on: name, in: account, policy: queue.settings.policy)
    }
  }

  /// The task as the source's ARN and its id: what clients name it by.
  private func handle(of task: MoveTask, _ source: String) -> String {
    var writer = JSONWriter()
    writer.beginObject()
    writer.member("taskId", task.id.description)
    writer.member("sourceArn", configuration.arn(ofQueue: source))
    writer.endObject()
    return Base64.encode(writer.bytes)
  }

  private func moveARN(_ text: String?, _ parameter: String) throws(SQSError) -> QueueARN {
    guard let text else { throw .missing(parameter) }
    guard let arn = QueueARN(text), arn.service == "sqs" else {
      throw .invalid(
        "You must use this format to specify the \(parameter): "
          + "arn:<partition>:<service>:<region>:<account-id>:<resource-id>")
    }
    return arn
  }

  private func moveQueue(
    _ arn: QueueARN, _ parameter: String, _ permission: String
  ) throws(SQSError) -> QueueListing {
    let found = arn.region == configuration.region ? find(arn.name, in: arn.account) : nil
    if found != nil || !caller.owns(arn.account) {
      try authorise(
        permission, on: arn.name, in: arn.account, policy: found?.settings.policy ?? "")
    }
    guard let queue = found else {
      throw SQSError(
        .resourceNotFound,
        "The resource that you specified for the \(parameter) parameter doesn't exist.")
    }
    return queue
  }

  private func write(_ task: MoveTask, _ source: String, to writer: inout ReplyWriter) {
    if task.status == .running { writer.member("TaskHandle", handle(of: task, source)) }
    var reason: String?
    let status =
      switch task.status {
      case .running: "RUNNING"
      case .cancelling: "CANCELLING"
      case .completed: "COMPLETED"
      case .cancelled: "CANCELLED"
      case .failedWithoutSource, .failedWithoutDestination, .failedTooLarge: "FAILED"
      }
    if task.status == .failedWithoutSource { reason = "CouldNotDetermineMessageSource" }
    if task.status == .failedTooLarge { reason = "MessageTooLarge" }
    if task.status == .failedWithoutDestination {
      reason = "AWS.SimpleQueueService.NonExistentQueue"
    }
    writer.member("Status", status)
    writer.member("SourceArn", configuration.arn(ofQueue: source))
    writer.member(
      "DestinationArn", ifPresent: task.destination.map { configuration.arn(ofQueue: $0) })
    if let rate = task.rate { writer.number("MaxNumberOfMessagesPerSecond", rate) }
    writer.number("ApproximateNumberOfMessagesMoved", task.moved)
    writer.number("ApproximateNumberOfMessagesToMove", task.toMove)
    writer.member("FailureReason", ifPresent: reason)
    writer.number("StartedTimestamp", Int(task.startedAt.milliseconds))
  }
}
