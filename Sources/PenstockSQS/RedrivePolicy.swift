// SPDX-License-Identifier: Apache-2.0
internal import Penstock

/// The attribute RedrivePolicy: where messages go that were received too often.
enum RedrivePolicy {
  static let name = QueueAttribute.redrivePolicy.rawValue
  /// Of this attribute and of the other: as much as a policy of permissions has.
  static let maximumBytes = 8192

  static func text(of settings: QueueSettings, _ configuration: SQSConfiguration) -> String? {
    guard !settings.deadLetterQueue.isEmpty else { return nil }
    var writer = JSONWriter()
    writer.beginObject()
    writer.member("deadLetterTargetArn", configuration.arn(ofQueue: settings.deadLetterQueue))
    writer.key("maxReceiveCount")
    writer.number(settings.maximumReceives)
    writer.endObject()
    return String(decoding: writer.bytes, as: UTF8.self)
  }

  /// An empty text takes the policy away.
  static func apply(
    _ text: String, _ configuration: SQSConfiguration, account: String,
    to change: inout QueueSettingsChange
  ) throws(SQSError) {
    guard !text.isEmpty else {
      change.deadLetterQueue = ""
      change.maximumReceives = 0
      return
    }
    func wrong(_ reason: String) -> SQSError {
      .invalid(text, for: name, reason, limit: 8192)
    }
    guard text.utf8.count <= maximumBytes, let policy = object(text) else {
      throw .invalid(
        "Invalid value for the parameter \(name). Reason: Redrive policy is not a valid JSON map.")
    }
    func member(_ name: String) throws(SQSError) -> JSONNode {
      guard let member = policy.member(name) else {
        throw wrong("Redrive policy does not contain mandatory attribute: \(name).")
      }
      return member
    }
    let count = try member("maxReceiveCount")
    let target = try member("deadLetterTargetArn")
    guard policy.members.count == 2 else {
      throw wrong(
        "Only following attributes are supported: [deadLetterTargetArn, maxReceiveCount].")
    }
    let number = count.kind == .string ? count.string : count.number
    guard let number, number.utf8.allSatisfy({ $0 &- UInt8(ascii: "0") < 10 }),
      let receives = Int(number), (1...1000).contains(receives)
    else {
      throw wrong(
        "Invalid value for maxReceiveCount: \(SQSError.echo(number ?? "")), valid values are from "
          + "1 to 1000 both inclusive.")
    }
    guard target.kind == .string, let arn = QueueARN(target.string) else {
      throw wrong("Dead-letter target ARN should be fully qualified ARN.")
    }
    guard arn.service == "sqs" else {
      throw wrong("Only SQS queues are valid resources for deadLetterTargetArn.")
    }
    guard arn.region == configuration.region else {
      throw wrong("Dead-letter target must be in same region as the source.")
    }
    guard arn.account == account else {
      throw wrong("Dead-letter target owner should be same as the source.")
    }
    change.deadLetterQueue = configuration.storeName(of: arn.name, in: account)
    change.maximumReceives = receives
  }

  /// What the store refuses of a policy; nil for another refusal.
  static func refusal(
    _ error: PenstockError, _ attributes: [(name: String, value: String)]
  ) -> SQSError? {
    guard let text = attributes.last(where: { $0.name == name })?.value else { return nil }
    switch (error.code, error.setting) {
    case (.deadLetterQueueNotFound, _):
      return .invalid(text, for: name, "Dead letter target does not exist.", limit: 8192)
    case (.deadLetterRefused, _):
      return .invalid(
        text, for: name, "The dead-letter queue does not allow this source queue.", limit: 8192)
    case (.invalidArgument, .deadLetterQueue):
      return .invalid(
        text, for: name, "Dead-letter queue must be same type of queue as the source.",
        limit: 8192)
    default: return nil
    }
  }

  static func object(_ text: String) -> JSONNode? {
    do throws(JSONError) {
      let root = try JSONParser.parse(Array(text.utf8)).root
      return root.kind == .object ? root : nil
    } catch { return nil }
  }
}

/// The attribute RedriveAllowPolicy: which queues may have this one for their dead letters.
enum RedriveAllowPolicy {
  static let name = QueueAttribute.redriveAllowPolicy.rawValue

  static func text(of settings: QueueSettings, _ configuration: SQSConfiguration) -> String? {
    var writer = JSONWriter()
    writer.beginObject()
    switch settings.deadLetterSources {
    case nil where !settings.showsAllowAll: return nil
    case nil: writer.member("redrivePermission", "allowAll")
    case .some(let sources) where sources.isEmpty: writer.member("redrivePermission", "denyAll")
    case .some(let sources):
      writer.member("redrivePermission", "byQueue")
      writer.key("sourceQueueArns")
      writer.beginArray()
      for source in sources {
        // One of elsewhere was kept whole.
        writer.string(source.hasPrefix("arn:") ? source : configuration.arn(ofQueue: source))
      }
      writer.endArray()
    }
    writer.endObject()
    return String(decoding: writer.bytes, as: UTF8.self)
  }

  static func apply(
    _ text: String, _ configuration: SQSConfiguration, to change: inout QueueSettingsChange
  ) throws(SQSError) {
    let cannot = "Amazon SQS can't create the redrive allow policy"
    func wrong(_ reason: String) -> SQSError {
      .invalid(text, for: name, reason, limit: 8192)
    }
    let malformed = SQSError.invalid(
      "Invalid value for the parameter \(name). Reason: \(cannot), as it’s in an unsupported "
        + "format.")
    change.showsAllowAll = false
    change.deadLetterSources = .some(nil)
    guard !text.isEmpty else { return }
    guard text.utf8.count <= RedrivePolicy.maximumBytes,
      let policy = RedrivePolicy.object(text),
      policy.members.allSatisfy({
        $0.key.isString("redrivePermission") || $0.key.isString("sourceQueueArns")
      }), let permission = policy.member("redrivePermission"), permission.kind == .string
    else { throw malformed }
    var sources: [String]?
    if let list = policy.member("sourceQueueArns") {
      guard list.kind == .array else { throw malformed }
      var names: [String] = []
      for element in list.elements {
        guard element.kind == .string, let arn = QueueARN(element.string) else { throw malformed }
        let name = configuration.storeName(of: arn.name, in: arn.account)
        let isHere = configuration.arn(ofQueue: name) == element.string
        names.append(isHere ? name : element.string)
      }
      sources = names
    }
    switch permission.string {
    case "byQueue":
      guard let sources, !sources.isEmpty else {
        throw wrong(
          "\(cannot). When you specify the byQueue permission type, you must also specify one or "
            + "more sourceQueueArns values.")
      }
      guard sources.count <= 10 else {
        throw wrong("The maximum number of source queue ARNs you can specify is 10.")
      }
      change.deadLetterSources = sources
    case "allowAll", "denyAll":
      guard sources == nil else {
        throw wrong(
          "To specify one or more source queue ARNs, you must set redrivePermission to byQueue.")
      }
      if permission.string == "denyAll" {
        change.deadLetterSources = []
      } else {
        change.showsAllowAll = true
      }
    default: throw malformed
    }
  }
}

/// `arn:partition:service:region:account:name`.
struct QueueARN {
  var service: String
  var region: String
  var account: String
  var name: String

  init?(_ text: String) {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    // The store's names of other accounts' queues are none of the wire's.
    guard text.utf8.count <= 1024, parts.count == 6, parts[0] == "arn",
      parts.allSatisfy({ !$0.isEmpty }), ["aws", "aws-cn", "aws-us-gov"].contains(parts[1]),
      !StoreName.isForeign(String(parts[5]))
    else { return nil }
    (service, region) = (String(parts[2]), String(parts[3]))
    (account, name) = (String(parts[4]), String(parts[5]))
  }
}

extension Call {
  func listDeadLetterSourceQueues(_ fields: Fields) throws(SQSError) {
    let queue = try queue(fields.string("QueueUrl"))
    let name = queue.name
    let start = configuration.storeName(of: "", in: configuration.owner(of: name).account)
    try list(fields, prefix: configuration.owner(of: name).name, .init("queueUrls", "QueueUrl")) {
      [store] after, limit in
      store.deadLetterSources(of: name, after: after.map { start + $0 }, limit: limit)
    }
  }
}
