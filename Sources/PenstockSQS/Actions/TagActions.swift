// SPDX-License-Identifier: Apache-2.0
internal import Penstock

/// The rules for tags.
enum TagRules {
  static let maximumCount = 50

  /// Checks the tags of one request; texts are lengths in characters.
  static func check(_ tags: [(name: String, value: String)]) throws(SQSError) {
    for (key, value) in tags {
      guard (1...128).contains(key.unicodeScalars.count) else { throw .invalid(keyLength) }
      guard key.unicodeScalars.allSatisfy(isAllowed) else {
        throw .invalid(
          "Tag keys may only contain unicode letters, digits, whitespace, or one of these symbols: "
            + "_ . : / = + - @")
      }
      guard !key.lowercased().hasPrefix("aws:") else {
        throw .invalid("Tag keys must not start with aws:, which is reserved.")
      }
      guard value.unicodeScalars.count <= 256 else {
        throw .invalid("Tag values must be between 0 and 256 characters in length.")
      }
      guard value.unicodeScalars.allSatisfy(isAllowed) else {
        throw .invalid(
          "Tag values may only contain unicode letters, digits, whitespace, or one of these "
            + "symbols: _ . : / = + - @")
      }
    }
  }

  static let keyLength = "Tag keys must be between 1 and 128 characters in length."

  static func merge(
    _ tags: [(name: String, value: String)], into all: [String: String], of queue: String
  ) throws(SQSError) -> [String: String] {
    let merged = all.merging(tags.map { ($0.name, $0.value) }) { $1 }
    guard merged.count <= maximumCount else {
      throw .invalid("Too many tags added for queue \(queue).")
    }
    return merged
  }

  private static func isAllowed(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar {
    case "a"..."z", "A"..."Z", "0"..."9", " ", "_", ".", ":", "/", "=", "+", "-", "@": true
    case "\u{0}"..<"\u{80}": false
    default:
      scalar.properties.isAlphabetic || scalar.properties.numericType != nil
        || scalar.properties.isWhitespace
    }
  }
}

extension Call {
  func tagQueue(_ fields: Fields) throws(SQSError) {
    let url = try fields.string("QueueUrl")
    let tags = try fields.stringMap("Tags") ?? []
    let queue = try queue(url, tags: tags)
    guard !tags.isEmpty else { throw .missing("Tags") }
    try TagRules.check(tags)
    let name = configuration.owner(of: queue.name).name
    change(queue.id) { (settings) throws(SQSError) in
      let all = try TagRules.merge(tags, into: settings.tags, of: name)
      return QueueSettingsChange { $0.tags = all }
    }
  }

  func untagQueue(_ fields: Fields) throws(SQSError) {
    let url = try fields.string("QueueUrl")
    let keys = try fields.strings("TagKeys") ?? []
    let queue = try queue(url, tagKeys: keys)
    guard !keys.isEmpty, !keys.contains("") else { throw .invalid(TagRules.keyLength) }
    let gone = Set(keys)
    change(queue.id) { settings in
      let rest = settings.tags.filter { !gone.contains($0.key) }
      return QueueSettingsChange { $0.tags = rest }
    }
  }

  func listQueueTags(_ fields: Fields) throws(SQSError) {
    let queue = try queue(fields.string("QueueUrl"))
    settle {
      finish { writer in
        let tags = queue.settings.tags.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
        writer.map(.init("Tags", "Tag"), key: "Key", tags)
      }
    }
  }

  func addPermission(_ fields: Fields) throws(SQSError) {
    let url = try fields.string("QueueUrl")
    let label = try fields.string("Label")
    let accounts = try fields.strings("AWSAccountIds")
    let actions = try fields.strings("Actions")
    let queue = try queue(url)
    let most = AccessPolicy.maximumPrincipals
    if let count = accounts?.count, count > most {
      throw SQSError(.overLimit, "\(count) accounts were found, maximum allowed is \(most).")
    }
    let arn = configuration.arn(ofQueue: queue.name)
    change(queue.id) { (settings) throws(SQSError) in
      let policy = try PermissionEditor.add(
        label: label, accounts: accounts, actions: actions, queueARN: arn, to: settings.policy)
      return QueueSettingsChange { $0.policy = policy }
    }
  }

  func removePermission(_ fields: Fields) throws(SQSError) {
    let url = try fields.string("QueueUrl")
    let label = try fields.string("Label")
    let queue = try queue(url)
    change(queue.id) { (settings) throws(SQSError) in
      let policy = try PermissionEditor.remove(label: label, from: settings.policy)
      return QueueSettingsChange { $0.policy = policy ?? "" }
    }
  }

  /// Changes settings as `decide` says, who sees what they are at that moment, and answers.
  func change(
    _ queue: QueueID,
    refusal: @escaping @Sendable (PenstockError) -> SQSError = { SQSError($0) },
    _ decide: @escaping @Sendable (QueueSettings) throws(SQSError) -> QueueSettingsChange
  ) {
    store.changeQueue(
      queue,
      deciding: { settings -> Result<QueueSettingsChange?, SQSError> in
        do throws(SQSError) {
          return .success(try decide(settings))
        } catch { return .failure(error) }
      },
      { result in
        switch result {
        case .success(.success): finish()
        case .success(.failure(let error)): fail(error)
        case .failure(let error): fail(refusal(error))
        }
      })
  }
}
