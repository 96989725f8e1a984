"""Model, training and data."""

import torch
from torch import nn
from torch.nn.functional import relu
from torch.utils.data import DataLoader, TensorDataset, random_split


class Net(nn.Module):
    """A small network for grey images of 8x8 pixels, in 4 classes."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.fc1 = nn.Linear(4 * 3 * 3, 16)
        self.fc2 = nn.Linear(16, 4)

    def forward(self, x):
        """Return the logits."""
        x = nn.functional.max_pool2d(relu(self.conv(x)), 2)
        return self.fc2(relu(self.fc1(x.flatten(1))))


def load_data(partition_id, num_partitions, batch_size):
    """Make a node's share of the data, 80% to train and 20% to test: where CIFAR-10 would be."""
    patterns = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1 + partition_id)
    labels = torch.randint(4, (80,), generator=generator)
    images = patterns[labels] + torch.randn(80, 1, 8, 8, generator=generator) / 2
    data = TensorDataset(images, labels)
    trainset, testset = random_split(data, [0.8, 0.2], generator=generator)
    return DataLoader(trainset, batch_size, shuffle=True), DataLoader(testset, batch_size)


def train(net, trainloader, epochs, lr, device):
    """Train the model and return the mean loss."""
    net.to(device).train()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    total = 0.0
    for _ in range(epochs):
        for images, labels in trainloader:
            optimizer.zero_grad()
            loss = criterion(net(images.to(device)), labels.to(device))
            loss.backward()
            optimizer.step()
            total += loss.item()
    return total / (epochs * len(trainloader))


def test(net, testloader, device):
    """Return loss and accuracy."""
    net.to(device).eval()
    loss, correct = 0.0, 0
    with torch.no_grad():
        for images, labels in testloader:
            outputs = net(images.to(device)).cpu()
            loss += nn.functional.cross_entropy(outputs, labels).item()
            correct += (outputs.argmax(1) == labels).sum().item()
    return loss / len(testloader), correct / len(testloader.dataset)
