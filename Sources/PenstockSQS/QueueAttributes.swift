// SPDX-License-Identifier: Apache-2.0
internal import Penstock

/// The attributes of queues: which there are, what they may hold, how they read.
enum QueueAttribute: String, CaseIterable, Sendable {
  // In the order of `All`.
  case approximateNumberOfMessages = "ApproximateNumberOfMessages"
  case approximateNumberOfMessagesDelayed = "ApproximateNumberOfMessagesDelayed"
  case approximateNumberOfMessagesNotVisible = "ApproximateNumberOfMessagesNotVisible"
  case createdTimestamp = "CreatedTimestamp"
  case delaySeconds = "DelaySeconds"
  case lastModifiedTimestamp = "LastModifiedTimestamp"
  case maximumMessageSize = "MaximumMessageSize"
  case messageRetentionPeriod = "MessageRetentionPeriod"
  case queueARN = "QueueArn"
  case receiveMessageWaitTimeSeconds = "ReceiveMessageWaitTimeSeconds"
  case sqsManagedSSEEnabled = "SqsManagedSseEnabled"
  case visibilityTimeout = "VisibilityTimeout"
  case contentBasedDeduplication = "ContentBasedDeduplication"
  case deduplicationScope = "DeduplicationScope"
  case fifoQueue = "FifoQueue"
  case fifoThroughputLimit = "FifoThroughputLimit"
  case redrivePolicy = "RedrivePolicy"
  case redriveAllowPolicy = "RedriveAllowPolicy"
  case policy = "Policy"
  case kmsMasterKeyID = "KmsMasterKeyId"
  case kmsDataKeyReusePeriodSeconds = "KmsDataKeyReusePeriodSeconds"

  /// What to answer when asked for it; nil when the queue has none.
  func value(of queue: QueueDescription, _ configuration: SQSConfiguration) -> String? {
    let settings = queue.settings
    func seconds(_ duration: Duration) -> String { String(duration.components.seconds) }
    func seconds(_ time: Timestamp) -> String { String(time.milliseconds / 1000) }
    switch self {
    case .approximateNumberOfMessages: return String(queue.counts.visible)
    case .approximateNumberOfMessagesDelayed: return String(queue.counts.delayed)
    case .approximateNumberOfMessagesNotVisible: return String(queue.counts.leased)
    case .createdTimestamp: return seconds(queue.createdAt)
    case .delaySeconds: return seconds(settings.delay)
    case .lastModifiedTimestamp: return seconds(queue.changedAt)
    case .maximumMessageSize: return String(settings.maximumMessageBytes)
    case .messageRetentionPeriod: return seconds(settings.retention)
    case .queueARN: return configuration.arn(ofQueue: queue.name)
    case .receiveMessageWaitTimeSeconds: return seconds(settings.receiveWait)
    case .sqsManagedSSEEnabled: return String(QueueEncryption.isManaged(settings))
    case .visibilityTimeout: return seconds(settings.visibilityTimeout)
    case .fifoQueue: return settings.isFIFO ? "true" : nil
    case .contentBasedDeduplication:
      return settings.isFIFO ? String(settings.deduplicatesByContent) : nil
    case .deduplicationScope:
      return settings.isFIFO ? settings.showsGroupScope ? "messageGroup" : "queue" : nil
    case .fifoThroughputLimit:
      return settings.isFIFO ? settings.showsGroupLimit ? "perMessageGroupId" : "perQueue" : nil
    case .redrivePolicy: return RedrivePolicy.text(of: settings, configuration)
    case .redriveAllowPolicy: return RedriveAllowPolicy.text(of: settings, configuration)
    case .policy: return settings.policy.isEmpty ? nil : settings.policy
    case .kmsMasterKeyID: return QueueEncryption.masterKey(settings)
    case .kmsDataKeyReusePeriodSeconds:
      return QueueEncryption.masterKey(settings).map { _ in seconds(settings.dataKeyReuse) }
    }
  }

  /// Whether an empty text takes it away.
  var isRemovable: Bool {
    switch self {
    case .policy, .redrivePolicy, .redriveAllowPolicy, .kmsMasterKeyID: true
    default: false
    }
  }

  /// The attributes that a list of names asks for.
  static func requested(_ names: [String]) throws(SQSError) -> Set<QueueAttribute> {
    var result: Set<QueueAttribute> = []
    for name in names {
      if name == "All" {
        result = Set(allCases)
      } else if let attribute = QueueAttribute(rawValue: name) {
        result.insert(attribute)
      } else {
        throw unknown(name)
      }
    }
    return result
  }

  static func unknown(_ name: String) -> SQSError {
    SQSError(.invalidAttributeName, "Unknown Attribute \(SQSError.echo(name)).")
  }

  static func invalidValue(_ name: String) -> SQSError {
    SQSError(.invalidAttributeValue, "Invalid value for the parameter \(name).")
  }
}

/// Attributes as a client wants them to be.
enum QueueAttributeChange {
  /// Checks all attributes of a CreateQueue or SetQueueAttributes and turns them into settings.
  /// Throws for the first that is wrong; then nothing may be changed.
  ///
  /// - Parameters:
  ///   - account: who owns the queue.
  ///   - seals: whether the store has a key ring.
  ///   - isFIFO: whether the queue is a FIFO queue, or is to be one.
  ///   - settings: those of a queue that is there.
  static func settings(
    _ attributes: [(name: String, value: String)], _ configuration: SQSConfiguration,
    account: String, isFIFO: Bool, seals: Bool, of settings: QueueSettings? = nil
  ) throws(SQSError) -> QueueSettingsChange {
    var change = QueueSettingsChange()
    var encryption = QueueEncryption.Change()
    for (name, value) in attributes {
      guard let attribute = QueueAttribute(rawValue: name) else {
        throw QueueAttribute.unknown(name)
      }
      // What an empty text takes away, a new queue does not have.
      if settings == nil, value.isEmpty, attribute.isRemovable { continue }
      if isFIFO, try applyFIFO(attribute, value, settings, to: &change) { continue }
      switch attribute {
      case .redrivePolicy:
        try RedrivePolicy.apply(value, configuration, account: account, to: &change)
      case .redriveAllowPolicy: try RedriveAllowPolicy.apply(value, configuration, to: &change)
      case .policy: change.policy = try policy(value, isNew: settings == nil)
      case .kmsMasterKeyID:
        guard value != KeyRing.managedKey, value.utf8.count <= 256 else {
          throw QueueAttribute.invalidValue(name)
        }
        encryption.masterKey = value
      case .sqsManagedSSEEnabled:
        guard let isOn = boolean(value) else { throw QueueAttribute.invalidValue(name) }
        encryption.isManaged = isOn
      default: try apply(attribute, value, configuration.bounds, to: &change)
      }
    }
    try encryption.apply(to: &change, of: settings, seals: seals)
    if change.showsGroupLimit ?? settings?.showsGroupLimit ?? false,
      !(change.showsGroupScope ?? settings?.showsGroupScope ?? false)
    {
      throw SQSError(
        .invalidAttributeValue,
        "The perMessageGroupId value is allowed only when the value for DeduplicationScope is "
          + "messageGroup")
    }
    return change
  }

  /// Takes an attribute that only FIFO queues have; false for others.
  private static func applyFIFO(
    _ attribute: QueueAttribute, _ value: String, _ settings: QueueSettings?,
    to change: inout QueueSettingsChange
  ) throws(SQSError) -> Bool {
    func isOn(_ values: (off: String, on: String)) throws(SQSError) -> Bool {
      guard value == values.off || value == values.on else {
        throw QueueAttribute.invalidValue(attribute.rawValue)
      }
      return value == values.on
    }
    switch attribute {
    case .fifoQueue:
      guard boolean(value) == true else {
        throw SQSError(
          .invalidAttributeValue,
          "Invalid value for the parameter FifoQueue. Reason: Modifying queue type is not "
            + "supported.")
      }
      change.isFIFO = true
    case .contentBasedDeduplication:
      guard let isOn = boolean(value) else { throw QueueAttribute.invalidValue(attribute.rawValue) }
      change.deduplicatesByContent = isOn
    case .deduplicationScope:
      change.showsGroupScope = try isOn(("queue", "messageGroup"))
      // What it does is settled when the queue is made; what it says is not.
      if settings == nil { change.deduplicatesByGroup = change.showsGroupScope }
    case .fifoThroughputLimit:
      change.showsGroupLimit = try isOn(("perQueue", "perMessageGroupId"))
    default: return false
    }
    return true
  }

  private static func apply(
    _ attribute: QueueAttribute, _ value: String, _ bounds: APILimits,
    to change: inout QueueSettingsChange
  ) throws(SQSError) {
    let name = attribute.rawValue
    switch attribute {
    case .visibilityTimeout:
      change.visibilityTimeout = .seconds(try integer(value, bounds.visibility, name))
    case .delaySeconds: change.delay = .seconds(try integer(value, bounds.delay, name))
    case .maximumMessageSize:
      change.maximumMessageBytes = try integer(value, bounds.messageBytes, name)
    case .messageRetentionPeriod:
      change.retention = .seconds(try integer(value, bounds.retention, name))
    case .receiveMessageWaitTimeSeconds:
      change.receiveWait = .seconds(try integer(value, bounds.wait, name))
    case .kmsDataKeyReusePeriodSeconds:
      change.dataKeyReuse = .seconds(try integer(value, 60...86_400, name))
    case .deduplicationScope, .fifoThroughputLimit:
      throw SQSError(
        .invalidAttributeName,
        "You can specify the \(name) only when FifoQueue is set to true.")
    default: throw QueueAttribute.unknown(name)
    }
  }

  /// A policy without blanks; empty to take it away.
  private static func policy(_ text: String, isNew: Bool) throws(SQSError) -> String {
    guard !text.isEmpty else { return "" }
    do throws(PolicyError) {
      return try AccessPolicy(text, .queue).text
    } catch {
      let name = QueueAttribute.policy.rawValue
      guard let count = error.statements else {
        throw SQSError(
          .invalidAttributeValue,
          "Invalid value for the parameter \(name). Reason: \(error.message)")
      }
      throw SQSError(
        isNew ? .invalidParameterValue : .overLimit,
        "\(count) statements were found in the submitted policy, max allowed is "
          + "\(AccessPolicy.maximumStatements)")
    }
  }

  /// A decimal integer without sign or blanks.
  private static func integer(
    _ text: String, _ range: ClosedRange<Int>, _ name: String
  ) throws(SQSError) -> Int {
    let isDecimal = text.utf8.allSatisfy { $0 &- UInt8(ascii: "0") < 10 }
    guard isDecimal, let value = Int(text), range.contains(value) else {
      throw QueueAttribute.invalidValue(name)
    }
    return value
  }

  /// `true` or `false` in any letter case.
  static func boolean(_ text: String) -> Bool? {
    switch text.lowercased() {
    case "true": true
    case "false": false
    default: nil
    }
  }
}
