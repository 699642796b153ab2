// SPDX-License-Identifier: Apache-2.0

/// AddPermission and RemovePermission: statements go into a queue's policy and out of it, without
/// a change to the rest.
enum PermissionEditor {
  /// What other accounts can be allowed to do.
  static let actions: Set<String> = [
    "*", "SendMessage", "ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility",
    "GetQueueAttributes", "GetQueueUrl", "ListDeadLetterSourceQueues", "PurgeQueue",
  ]

  /// Appends a statement that allows accounts to do something.
  ///
  /// - Parameter policy: the one there is; nil or empty when there is none.
  /// - Returns: the policy from now on.
  static func add(
    label: String?, accounts: [String]?, actions: [String]?, queueARN: String,
    to policy: String?
  ) throws(SQSError) -> String {
    let label = try self.label(label)
    guard let actions, !actions.isEmpty else { throw .missing("ActionName") }
    guard let accounts, !accounts.isEmpty else { throw .missing("AWSAccountIds") }
    guard label.utf8.count <= 80, label.utf8.allSatisfy(Alphabet.isNameByte) else {
      throw .invalid(
        label, for: "Label",
        "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length")
    }
    let document = try PolicyDocument(policy)
    if document?.statements.contains(where: { $0.hasSid(label) }) == true {
      throw .invalid(label, for: "Label", "Already exists.")
    }
    guard actions.count <= AccessPolicy.maximumActions else {
      throw SQSError(
        .overLimit,
        "\(actions.count) Actions were found, maximum allowed is \(AccessPolicy.maximumActions).")
    }
    let count = (document?.statements.count ?? 0) + 1
    guard count <= AccessPolicy.maximumStatements else {
      throw SQSError(
        .overLimit,
        "\(count) Statements were found, maximum allowed is \(AccessPolicy.maximumStatements).")
    }
    for action in actions where AccessDecision.ownerActions.contains(action) {
      throw .invalid(
        "SQS:" + action, for: "ActionName",
        "Only the queue owner is allowed to invoke this action.")
    }
    for action in actions where !Self.actions.contains(action) {
      throw .invalid(
        "SQS:" + action, for: "ActionName",
        "Please refer to the appropriate WSDL for a list of valid actions. ")
    }
    for account in accounts where !AccountID.isValid(account) {
      throw .invalid("[\(SQSError.echo(account))]", for: "PrincipalId", "Unable to verify.")
    }
    let statement = statement(label, accounts, actions, queueARN)
    let text =
      document?.text(appending: statement) ?? newDocument(statement, queueARN)
    do throws(PolicyError) {
      return try AccessPolicy(text, .queue).text
    } catch {
      // All that can be too much now: accounts and bytes.
      throw SQSError(.overLimit, error.message)
    }
  }

  /// Takes the statement of this label away.
  ///
  /// - Parameter policy: the one there is; nil or empty when there is none.
  /// - Returns: the policy from now on; nil when no statement is left.
  static func remove(label: String?, from policy: String?) throws(SQSError) -> String? {
    let label = try self.label(label)
    guard let document = try PolicyDocument(policy) else {
      throw .invalid(label, for: "Label", "can't find label.")
    }
    guard document.statements.contains(where: { $0.hasSid(label) }) else {
      throw .invalid(label, for: "Label", "can't find label on existing policy.")
    }
    return document.text(removing: label)
  }

  private static func label(_ label: String?) throws(SQSError) -> String {
    guard let label, !label.isEmpty else { throw .missing("Label") }
    return label
  }

  private static func statement(
    _ label: String, _ accounts: [String], _ actions: [String], _ queueARN: String
  ) -> [UInt8] {
    let parts = queueARN.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
    let partition = parts.count == 3 ? String(parts[1]) : "aws"
    var writer = JSONWriter()
    func write(_ texts: [String]) {
      if texts.count == 1 { return writer.string(texts[0]) }
      writer.beginArray()
      for text in texts { writer.string(text) }
      writer.endArray()
    }
    writer.beginObject()
    writer.member("Sid", label)
    writer.member("Effect", "Allow")
    writer.key("Principal")
    writer.beginObject()
    writer.key("AWS")
    write(accounts.map { Principal.root(of: $0, partition: partition).arn })
    writer.endObject()
    writer.key("Action")
    write(actions.map { "SQS:" + $0 })
    writer.member("Resource", queueARN)
    writer.endObject()
    return writer.bytes
  }

  private static func newDocument(_ statement: [UInt8], _ queueARN: String) -> String {
    var writer = JSONWriter()
    writer.beginObject()
    writer.member("Version", "2008-10-17")
    writer.member("Id", queueARN + "/SQSDefaultPolicy")
    writer.key("Statement")
    writer.beginArray()
    let end = Array("]}".utf8)
    return String(decoding: writer.bytes + statement + end, as: UTF8.self)
  }
}

/// A policy that is there, taken apart as far as an editor needs.
private struct PolicyDocument {
  let root: JSONNode
  let statements: [JSONNode]

  /// Nil when there is none.
  init?(_ text: String?) throws(SQSError) {
    guard let text, !text.isEmpty else { return nil }
    do throws(PolicyError) {
      root = try PolicyReader.parse(Array(AccessPolicy(text, .queue).text.utf8))
    } catch {
      throw SQSError(.invalidAttributeValue, "Invalid value for the parameter Policy.")
    }
    let statement = root.member("Statement")
    statements = statement.map { $0.kind == .array ? $0.elements : [$0] } ?? []
  }

  func text(appending statement: [UInt8]) -> String {
    text(statements.map { Array($0.source) } + [statement])
  }

  /// Nil when nothing is left.
  func text(removing sid: String) -> String? {
    let rest = statements.filter { !$0.hasSid(sid) }
    return rest.isEmpty ? nil : text(rest.map { Array($0.source) })
  }

  /// The document with these statements instead of its own.
  private func text(_ statements: [[UInt8]]) -> String {
    let list = Array("[".utf8) + statements.joined(separator: ",".utf8) + Array("]".utf8)
    let members = root.members.map { key, value in
      Array(key.source) + Array(":".utf8)
        + (key.isString("Statement") ? list : Array(value.source))
    }
    let object = Array("{".utf8) + members.joined(separator: ",".utf8) + Array("}".utf8)
    return String(decoding: object, as: UTF8.self)
  }
}

extension JSONNode {
  /// The value as it is written, quotes and brackets included.
  fileprivate var source: ArraySlice<UInt8> {
    let token = document.tokens[index]
    let quote = token.kind == .string ? 1 : 0
    return document.bytes[Int(token.start) - quote..<Int(token.end) + quote]
  }

  fileprivate func hasSid(_ sid: String) -> Bool { member("Sid")?.isString(sid) ?? false }
}

/// The editors as those outside of this module can see them.
package enum PermissionEditing {
  package static func add(
    label: String?, accounts: [String]?, actions: [String]?, queueARN: String, to policy: String?
  ) throws(WireRefusal) -> String {
    do throws(SQSError) {
      return try PermissionEditor.add(
        label: label, accounts: accounts, actions: actions, queueARN: queueARN, to: policy)
    } catch { throw WireRefusal(error) }
  }

  package static func remove(label: String?, from policy: String?) throws(WireRefusal) -> String? {
    do throws(SQSError) {
      return try PermissionEditor.remove(label: label, from: policy)
    } catch { throw WireRefusal(error) }
  }
}
