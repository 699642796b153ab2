// SPDX-License-Identifier: Apache-2.0
internal import Penstock

extension Call {
  func receiveMessage(_ fields: Fields) throws(SQSError) -> ReceiveTicket? {
    let url = try fields.string("QueueUrl")
    let maximum = try fields.integer("MaxNumberOfMessages")
    let wait = try fields.integer("WaitTimeSeconds")
    let visibility = try fields.integer("VisibilityTimeout")
    let oldNames = try fields.strings("AttributeNames")
    let names = try fields.strings("MessageSystemAttributeNames")
    let patterns = try fields.strings("MessageAttributeNames")
    let attemptID = try fields.string("ReceiveRequestAttemptId")
    let queue = try queue(url)

    let bounds = configuration.bounds
    if let maximum, !bounds.received.contains(maximum) {
      throw .invalid(
        String(maximum), for: "MaxNumberOfMessages",
        "Must be between 1 and \(bounds.received.upperBound), if provided.")
    }
    if let wait, !bounds.wait.contains(wait) {
      throw .invalid(
        String(wait), for: "WaitTimeSeconds",
        "Must be >= 0 and <= \(bounds.wait.upperBound), if provided.")
    }
    if let visibility, !bounds.visibility.contains(visibility) {
      throw .invalid(
        String(visibility), for: "VisibilityTimeout",
        "Must be >= 0 and <= \(bounds.visibility.upperBound), if provided.")
    }
    // The newer list, when it is there, makes the older one not count.
    let requested = try SystemAttribute.requested(names ?? oldNames ?? [])
    if let attemptID {
      guard queue.settings.isFIFO else {
        throw .invalid(
          attemptID, for: "ReceiveRequestAttemptId",
          "The request include parameter that is not valid for this queue type.")
      }
      guard Alphabet.isGroupID(attemptID) else {
        throw .invalid(
          attemptID, for: "ReceiveRequestAttemptId",
          "ReceiveRequestAttemptId can only include alphanumeric and punctuation characters. "
            + "1 to 128 in length.")
      }
    }
    let filter = AttributeFilter(patterns ?? [])
    let request = ReceiveRequest(
      maximumMessages: maximum ?? 1, wait: wait.map { .seconds($0) },
      visibilityTimeout: visibility.map { .seconds($0) }, attemptID: attemptID)
    return store.receive(request, from: queue.id) { [store] result in
      switch result {
      case .failure(let error) where error.code == .attemptOver:
        fail(
          .invalid(
            attemptID ?? "", for: "ReceiveRequestAttemptId",
            "The receiveRequestAttemptId is not valid anymore since the receive call is not "
              + "retryable."))
      case .failure(let error): fail(SQSError(error))
      case .success(let messages):
        finish { writer in
          writer.structures(.init("Messages", "Message"), messages) { message, writer in
            write(
              message, handle: store.receiptHandle(for: message.handle), requested, filter,
              to: &writer)
          }
        }
      }
    }
  }

  private func write(
    _ message: ReceivedMessage, handle: String, _ requested: Set<SystemAttribute>,
    _ filter: AttributeFilter, to writer: inout ReplyWriter
  ) {
    writer.member("MessageId", message.id.description)
    writer.member("ReceiptHandle", handle)
    writer.member("MD5OfBody", Digests.ofBody(message.content.body))
    writer.member("Body", message.content.body)
    let system = SystemAttribute.allCases.compactMap { attribute in
      requested.contains(attribute)
        ? attribute.value(of: message, configuration).map { (attribute.rawValue, $0) } : nil
    }
    writer.map(.init("Attributes", "Attribute"), system)
    // The digest covers what is returned, not what was sent.
    let attributes = message.content.attributes.filter { filter($0.name) }
    guard let digest = Digests.ofAttributes(attributes) else { return }
    writer.member("MD5OfMessageAttributes", digest)
    writer.map(.init("MessageAttributes", "MessageAttribute"), attributes, by: \.name) {
      attribute, writer in
      switch attribute.value {
      case .string(let text): writer.member("StringValue", text)
      case .binary(let bytes): writer.member("BinaryValue", Base64.encode(bytes))
      }
      writer.member("DataType", attribute.type)
    }
  }
}
