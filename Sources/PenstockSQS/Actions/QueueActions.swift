// SPDX-License-Identifier: Apache-2.0
internal import Penstock

extension Call {
  func createQueue(_ fields: Fields) throws(SQSError) {
    let name = try fields.string("QueueName")
    let attributes = try fields.stringMap("Attributes") ?? []
    let lowerTags = try fields.stringMap("tags") ?? []
    let capitalTags = try fields.stringMap("Tags") ?? []
    let tags = lowerTags + capitalTags
    try authorise(
      action.rawValue, on: name ?? "", in: caller.account, policy: "", tags: tags)
    if !tags.isEmpty {
      try authorise(
        Action.tagQueue.rawValue, on: name ?? "", in: caller.account, policy: "", tags: tags)
    }
    let checked = try Self.queueName(name)
    let isFIFO = attributes.contains {
      $0.name == QueueAttribute.fifoQueue.rawValue
        && QueueAttributeChange.boolean($0.value) == true
    }
    if isFIFO {
      guard QueueName.isValidFIFO(checked) else { throw .invalid(Self.fifoNameRule) }
    } else {
      guard QueueName.isValid(checked) else { throw .invalid(Self.nameRule) }
    }
    let settings = try QueueAttributeChange.settings(
      attributes, configuration, account: caller.account, isFIFO: isFIFO,
      seals: store.cipher != nil)
    try TagRules.check(tags)
    var defaults = QueueSettings()
    defaults.maximumLeased = configuration.maximumInFlight
    defaults.tags = try TagRules.merge(tags, into: [:], of: checked)
    let longest = configuration.bounds.messageBytes.upperBound
    defaults.maximumMessageBytes = min(defaults.maximumMessageBytes, longest)
    if store.cipher?.has(key: KeyRing.managedKey) == true {
      defaults.encryptionKey = KeyRing.managedKey
    }
    let storeName = configuration.storeName(of: checked, in: caller.account)
    if configuration.hasCooldowns, store.lookup(storeName) == nil,
      service.deletions.rests(storeName, at: store.now)
    {
      throw SQSError(
        .queueDeletedRecently,
        "You must wait 60 seconds after deleting a queue before you can create another with the "
          + "same name.")
    }
    store.createQueue(storeName, settings, beside: defaults) { result in
      switch result {
      case .success(let queue): finish { $0.member("QueueUrl", url(ofQueue: queue.name)) }
      case .failure(let error):
        fail(RedrivePolicy.refusal(error, attributes) ?? Self.creationError(error))
      }
    }
  }

  static let nameRule =
    "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length"
  static let fifoNameRule =
    "The name of a FIFO queue can only include alphanumeric characters, hyphens, or underscores, "
    + "must end with .fifo suffix and be 1 to 80 in length"

  private static func queueName(_ name: String?) throws(SQSError) -> String {
    guard let name else {
      throw .invalid(
        "Value for parameter QueueName is invalid. Reason: Must specify a queue name.")
    }
    guard !name.isEmpty else { throw .invalid("Queue name cannot be empty") }
    return name
  }

  private static func creationError(_ error: PenstockError) -> SQSError {
    guard error.code == .queueExists else { return SQSError(error) }
    let name: QueueAttribute? =
      switch error.setting {
      case .visibilityTimeout: .visibilityTimeout
      case .delay: .delaySeconds
      case .maximumMessageBytes: .maximumMessageSize
      case .retention: .messageRetentionPeriod
      case .receiveWait: .receiveMessageWaitTimeSeconds
      case .isFIFO: .fifoQueue
      case .deduplicatesByContent: .contentBasedDeduplication
      case .deduplicatesByGroup, .showsGroupScope: .deduplicationScope
      case .showsGroupLimit: .fifoThroughputLimit
      case .deadLetterQueue, .maximumReceives: .redrivePolicy
      case .deadLetterSources, .showsAllowAll: .redriveAllowPolicy
      case .policy: .policy
      case .encryptionKey, .showsEncryption: .kmsMasterKeyID
      case .dataKeyReuse: .kmsDataKeyReusePeriodSeconds
      case .deduplicationWindow, .maximumMessages, .maximumBytes, .maximumLeased, .priorityStep,
        .isFair, .tags, nil:
        nil
      }
    guard let name else { return SQSError(.queueNameExists, error.message) }
    return SQSError(
      .queueNameExists,
      "A queue already exists with the same name and a different value for attribute "
        + name.rawValue)
  }

  func getQueueURL(_ fields: Fields) throws(SQSError) {
    let name = try fields.string("QueueName")
    let owner = try fields.string("QueueOwnerAWSAccountId")
    let checked = try Self.queueName(name)
    let queue = try queue(checked, in: owner ?? caller.account)
    settle { finish { $0.member("QueueUrl", url(ofQueue: queue.name)) } }
  }

  func listQueues(_ fields: Fields) throws(SQSError) {
    let prefix = try fields.string("QueueNamePrefix") ?? ""
    let account = caller.account
    try authorise(action.rawValue, on: "", in: account, policy: "")
    let start = configuration.storeName(of: "", in: account)
    try list(fields, prefix: prefix, .init("QueueUrls", "QueueUrl")) {
      [store] after, limit in
      store.queueNames(
        prefix: start + prefix, after: after.map { start + $0 }, limit: limit
      ).filter { !start.isEmpty || !StoreName.isForeign($0) }
    }
  }

  /// Answers with a page of queue URLs.
  ///
  /// - Parameter prefix: what a token must have been made for.
  func list(
    _ fields: Fields, prefix: String, _ key: ReplyWriter.Name, _ names: (String?, Int) -> [String]
  ) throws(SQSError) {
    let maximum = try fields.integer("MaxResults")
    let token = try fields.string("NextToken")
    if let maximum, !(1...1000).contains(maximum) {
      throw .invalid(
        "Value for parameter MaxResults is invalid. Reason: MaxResults must be an integer "
          + "between 1 and 1000.")
    }
    var after: String?
    if let token {
      guard let page = ListToken(token) else { throw .invalid("Invalid or expired next token.") }
      guard page.prefix == prefix else {
        throw .invalid(
          "Invalid NextToken value. If you are passing in NextToken, you must not change the "
            + "other request parameters.")
      }
      after = page.after
    }
    let limit = maximum ?? 1000
    let found = names(after, limit + 1)
    let names = Array(found.prefix(limit))
    var next: String?
    if maximum != nil, found.count > limit, let last = names.last {
      next = ListToken(prefix: prefix, after: configuration.owner(of: last).name).text
    }
    settle { [next] in
      finish { writer in
        writer.texts(key, names.map { url(ofQueue: $0) })
        writer.member("NextToken", ifPresent: next)
      }
    }
  }

  func deleteQueue(_ fields: Fields) throws(SQSError) {
    let queue = try queue(fields.string("QueueUrl"))
    store.deleteQueue(queue.id) { [store, configuration, service] result in
      if configuration.hasCooldowns, case .success = result {
        _ = service.deletions.start(queue.name, at: store.now)
      }
      finish(result)
    }
  }

  func purgeQueue(_ fields: Fields) throws(SQSError) {
    let queue = try queue(fields.string("QueueUrl"))
    if configuration.hasCooldowns, !service.purges.start(queue.name, at: store.now) {
      let name = configuration.owner(of: queue.name).name
      throw SQSError(
        .purgeQueueInProgress,
        "Only one PurgeQueue operation on \(name) is allowed every 60 seconds.")
    }
    store.purgeQueue(queue.id) { [service] result in
      if case .failure = result { service.purges.end(queue.name) }
      finish(result)
    }
  }

  func getQueueAttributes(_ fields: Fields) throws(SQSError) {
    let url = try fields.string("QueueUrl")
    let names = try fields.strings("AttributeNames") ?? []
    let queue = try queue(url)
    let requested = try QueueAttribute.requested(names)
    guard !requested.isEmpty else { return finish { _ in } }
    store.describe(queue.id) { result in
      switch result {
      case .failure(let error): fail(SQSError(error))
      case .success(let queue):
        finish { [configuration] writer in
          let attributes = QueueAttribute.allCases.compactMap { attribute in
            requested.contains(attribute)
              ? attribute.value(of: queue, configuration).map { (attribute.rawValue, $0) } : nil
          }
          writer.map(.init("Attributes", "Attribute"), attributes)
        }
      }
    }
  }

  func setQueueAttributes(_ fields: Fields) throws(SQSError) {
    let url = try fields.string("QueueUrl")
    let attributes = try fields.stringMap("Attributes") ?? []
    let queue = try queue(url)
    guard !attributes.isEmpty else { throw .missing("Attribute.Name") }
    let seals = store.cipher != nil
    let account = configuration.owner(of: queue.name).account
    change(queue.id, refusal: { RedrivePolicy.refusal($0, attributes) ?? SQSError($0) }) {
      [configuration] (settings) throws(SQSError) in
      try QueueAttributeChange.settings(
        attributes, configuration, account: account, isFIFO: settings.isFIFO, seals: seals,
        of: settings)
    }
  }
}

/// Where a list of queues goes on. Opaque to clients.
struct ListToken: Hashable, Sendable {
  var prefix: String
  /// The last name of the page before.
  var after: String

  init(prefix: String, after: String) {
    self.prefix = prefix
    self.after = after
  }

  init?(_ text: String) {
    guard text.utf8.count <= 1024, let bytes = Base64.decode(Array(text.utf8)),
      let decoded = String(validating: bytes, as: UTF8.self)
    else { return nil }
    let parts = decoded.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count == 3, parts[0] == "1", !parts[2].isEmpty else { return nil }
    prefix = String(parts[1])
    after = String(parts[2])
  }

  /// Names hold no slash, and a prefix that does finds no page to go on from.
  var text: String { Base64.encode(Array("1/\(prefix)/\(after)".utf8)) }
}
