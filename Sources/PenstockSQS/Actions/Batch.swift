// SPDX-License-Identifier: Apache-2.0
internal import Penstock

/// One entry of a batch request, types checked.
struct BatchEntry<Input: Sendable>: Sendable {
  var id: String?
  var input: Input

  static func all(
    of fields: Fields, _ read: (Fields) throws(SQSError) -> Input
  ) throws(SQSError) -> [BatchEntry<Input>] {
    guard let structures = try fields.structures("Entries") else { return [] }
    var entries: [BatchEntry<Input>] = []
    for structure in structures {
      entries.append(BatchEntry(id: try structure.string("Id"), input: try read(structure)))
    }
    return entries
  }
}

/// An entry after its own checks.
enum BatchOutcome<Checked: Sendable>: Sendable {
  case accepted(Checked)
  case refused(SQSError)
}

enum BatchRules {
  /// The checks of a whole batch, in order. Returns the ids.
  static func check<Input>(
    _ entries: [BatchEntry<Input>], shape: String, most: Int
  ) throws(SQSError) -> [String] {
    guard !entries.isEmpty else {
      throw SQSError(
        .emptyBatchRequest, "There should be at least one \(shape) in the request.")
    }
    guard entries.count <= most else {
      throw SQSError(
        .tooManyEntries,
        "Maximum number of entries per request are \(most). You have sent "
          + "\(entries.count).")
    }
    var ids: [String] = []
    for (place, entry) in entries.enumerated() {
      guard let id = entry.id else { throw .missing("\(shape).\(place + 1).Id") }
      ids.append(id)
    }
    // An id has the form of a queue name.
    guard ids.allSatisfy(QueueName.isValid) else {
      throw SQSError(
        .invalidBatchEntryID,
        "A batch entry id can only contain alphanumeric characters, hyphens and underscores. "
          + "It can be at most 80 letters long.")
    }
    var seen: Set<String> = []
    for id in ids where !seen.insert(id).inserted {
      throw SQSError(.batchEntryIDsNotDistinct, "Id \(id) repeated.")
    }
    return ids
  }
}

extension Call {
  /// Runs the accepted entries as one call of the store and answers for all.
  ///
  /// - Parameters:
  ///   - failure: the wire's words for an entry that the store refused.
  ///   - write: the members of a successful entry after its id.
  func runBatch<Checked: Sendable, Value: Sendable>(
    _ ids: [String], _ outcomes: [BatchOutcome<Checked>],
    run: ([Checked], @escaping Completion<[Result<Value, PenstockError>]>) -> Void,
    failure: @escaping @Sendable (Checked, PenstockError) -> SQSError,
    write: @escaping @Sendable (Checked, Value, inout ReplyWriter) -> Void
  ) {
    let accepted = outcomes.compactMap { outcome in
      if case .accepted(let checked) = outcome { checked } else { nil }
    }
    guard !accepted.isEmpty else {
      return finish { writeBatch(ids, outcomes, [], failure, write, to: &$0) }
    }
    run(accepted) { result in
      switch result {
      case .failure(let error): fail(SQSError(error))
      case .success(let results):
        finish { writeBatch(ids, outcomes, results, failure, write, to: &$0) }
      }
    }
  }

  private func writeBatch<Checked, Value>(
    _ ids: [String], _ outcomes: [BatchOutcome<Checked>],
    _ results: [Result<Value, PenstockError>],
    _ failure: (Checked, PenstockError) -> SQSError,
    _ write: (Checked, Value, inout ReplyWriter) -> Void, to writer: inout ReplyWriter
  ) {
    var succeeded: [(id: String, checked: Checked, value: Value)] = []
    var failed: [(id: String, error: SQSError)] = []
    var rest = results[...]
    for (id, outcome) in zip(ids, outcomes) {
      switch outcome {
      case .refused(let error): failed.append((id, error))
      case .accepted(let checked):
        switch rest.popFirst() ?? Self.noResult() {
        case .success(let value): succeeded.append((id, checked, value))
        case .failure(let error): failed.append((id, failure(checked, error)))
        }
      }
    }
    writer.structures(.init("Successful", action.rawValue + "ResultEntry"), succeeded) {
      (entry, writer) in
      writer.member("Id", entry.id)
      write(entry.checked, entry.value, &writer)
    }
    writer.structures(.init("Failed", "BatchResultErrorEntry"), failed) { entry, writer in
      writer.member("Id", entry.id)
      writer.bool("SenderFault", entry.error.kind.isSenderFault)
      // The real service's name for its own fault inside a batch.
      let isOurs = entry.error.kind == .internalFailure
      writer.member("Code", isOurs ? "InternalError" : entry.error.kind.queryCode)
      writer.member("Message", entry.error.message)
    }
  }
}
