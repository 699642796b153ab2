// SPDX-License-Identifier: Apache-2.0
internal import Penstock

/// A lease as a client names it, with its text for error messages.
struct NamedLease: Sendable {
  var text: String
  var handle: LeaseHandle
}

/// Members of a visibility change, types checked.
struct VisibilityInput: Sendable {
  var handle: String?
  var timeout: Int?

  init(_ fields: Fields) throws(SQSError) {
    handle = try fields.string("ReceiptHandle")
    timeout = try fields.integer("VisibilityTimeout")
  }
}

/// A visibility change that passed all checks but those of the store.
struct CheckedVisibility: Sendable {
  var lease: NamedLease
  var timeout: Int

  var change: VisibilityChange {
    VisibilityChange(handle: lease.handle, timeout: .seconds(timeout))
  }
}

extension Call {
  /// Longest time from a receive to the end of its lease, however often it is changed.
  private var longestLease: Int { configuration.bounds.visibility.upperBound }

  /// Reads a receipt handle of this queue.
  func lease(
    _ text: String?, of queue: QueueListing, parameter: String = "ReceiptHandle"
  ) throws(SQSError) -> NamedLease {
    guard let text, !text.isEmpty else { throw .missing(parameter) }
    guard text.utf8.count <= 1024, let handle = store.leaseHandle(from: text) else {
      throw .malformedHandle(text)
    }
    guard handle.queue == queue.id else { throw .foreignHandle }
    return NamedLease(text: text, handle: handle)
  }

  func deleteMessage(_ fields: Fields) throws(SQSError) {
    let url = try fields.string("QueueUrl")
    let text = try fields.string("ReceiptHandle")
    let queue = try queue(url)
    let lease = try lease(text, of: queue)
    store.delete([lease.handle], from: queue.id) { result in
      switch result.flatMap({ $0.first ?? Self.noResult() }) {
      case .success: finish()
      case .failure(let error): fail(Self.deletionError(error, lease))
      }
    }
  }

  func deleteMessageBatch(_ fields: Fields) throws(SQSError) {
    let url = try fields.string("QueueUrl")
    let entries = try BatchEntry<String?>.all(of: fields) {
      (fields) throws(SQSError) in try fields.string("ReceiptHandle")
    }
    let queue = try queue(url)
    let shape = "DeleteMessageBatchRequestEntry"
    let ids = try BatchRules.check(
      entries, shape: shape, most: configuration.bounds.batchEntries)
    var outcomes: [BatchOutcome<NamedLease>] = []
    for (place, entry) in entries.enumerated() {
      do throws(SQSError) {
        let parameter = "\(shape).\(place + 1).ReceiptHandle"
        outcomes.append(.accepted(try lease(entry.input, of: queue, parameter: parameter)))
      } catch {
        outcomes.append(.refused(error))
      }
    }
    runBatch(ids, outcomes) { leases, completion in
      store.delete(leases.map(\.handle), from: queue.id, completion)
    } failure: { lease, error in
      Self.deletionError(error, lease)
    } write: { _, _, _ in
    }
  }

  private static func deletionError(_ error: PenstockError, _ lease: NamedLease) -> SQSError {
    switch error.code {
    case .invalidHandle: .malformedHandle(lease.text)
    case .leaseLost:
      .invalid(lease.text, for: "ReceiptHandle", "The receipt handle has expired.")
    default: SQSError(error)
    }
  }

  /// Checks in order: handle there, timeout there, timeout in range, handle good.
  private func check(
    _ input: VisibilityInput, for queue: QueueListing, prefix: String, range: String
  ) throws(SQSError) -> CheckedVisibility {
    guard let text = input.handle, !text.isEmpty else { throw .missing(prefix + "ReceiptHandle") }
    guard let timeout = input.timeout else { throw .missing(prefix + "VisibilityTimeout") }
    guard configuration.bounds.visibility.contains(timeout) else {
      throw .invalid(String(timeout), for: "VisibilityTimeout", range)
    }
    return CheckedVisibility(lease: try lease(text, of: queue), timeout: timeout)
  }

  func changeMessageVisibility(_ fields: Fields) throws(SQSError) {
    let url = try fields.string("QueueUrl")
    let input = try VisibilityInput(fields)
    let queue = try queue(url)
    let checked = try check(
      input, for: queue, prefix: "", range: "Must be between 0 and \(longestLease).")
    store.changeVisibility(
      [checked.change], of: queue.id, totalLimit: .seconds(longestLease)
    ) { result in
      switch result.flatMap({ $0.first ?? Self.noResult() }) {
      case .success: finish()
      case .failure(let error): fail(visibilityError(error, checked))
      }
    }
  }

  func changeMessageVisibilityBatch(_ fields: Fields) throws(SQSError) {
    let url = try fields.string("QueueUrl")
    let entries = try BatchEntry<VisibilityInput>.all(of: fields) {
      (fields) throws(SQSError) in try VisibilityInput(fields)
    }
    let queue = try queue(url)
    let shape = "ChangeMessageVisibilityBatchRequestEntry"
    let ids = try BatchRules.check(
      entries, shape: shape, most: configuration.bounds.batchEntries)
    var outcomes: [BatchOutcome<CheckedVisibility>] = []
    for (place, entry) in entries.enumerated() {
      do throws(SQSError) {
        let checked = try check(
          entry.input, for: queue, prefix: "\(shape).\(place + 1).",
          range: "VisibilityTimeout must be an integer between 0 and \(longestLease).")
        outcomes.append(.accepted(checked))
      } catch {
        outcomes.append(.refused(error))
      }
    }
    runBatch(ids, outcomes) { changes, completion in
      store.changeVisibility(
        changes.map(\.change), of: queue.id, totalLimit: .seconds(longestLease),
        completion)
    } failure: { checked, error in
      visibilityError(error, checked)
    } write: { _, _, _ in
    }
  }

  private func visibilityError(
    _ error: PenstockError, _ checked: CheckedVisibility
  ) -> SQSError {
    switch error.code {
    case .invalidHandle: .malformedHandle(checked.lease.text)
    case .messageNotFound, .leaseLost:
      .invalid(
        checked.lease.text, for: "ReceiptHandle",
        "Message does not exist or is not available for visibility timeout change.")
    case .leaseLimitExceeded:
      .invalid(
        String(checked.timeout), for: "VisibilityTimeout",
        "Total VisibilityTimeout for the message is beyond the limit [\(longestLease) seconds].")
    default: SQSError(error)
    }
  }
}
