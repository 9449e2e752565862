"""The paper's networks in PyTorch, with a width multiplier `w`. Names are those of PyTorch state dicts."""

import torch
import torch.nn.functional as F
from torch import nn


class LeNet(nn.Module):
    """For 28x28x1 images."""

    image = (1, 28, 28)

    def __init__(self, w=1):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 2 * w, 5, padding=2)
        self.conv2 = nn.Conv2d(2 * w, 4 * w, 5, padding=2)
        self.fc1 = nn.Linear(4 * w * 7 * 7, 64 * w)
        self.fc2 = nn.Linear(64 * w, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc2(x)


class LeNetCifar(nn.Module):
    """For 32x32x3 images."""

    image = (3, 32, 32)

    def __init__(self, w=1):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6 * w, 5)
        self.conv2 = nn.Conv2d(6 * w, 16 * w, 5)
        self.fc1 = nn.Linear(16 * w * 5 * 5, 120 * w)
        self.fc2 = nn.Linear(120 * w, 84 * w)
        self.fc3 = nn.Linear(84 * w, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet18(nn.Module):
    """For 32x32x3 images: stages of 4w, 8w, 16w and 32w channels."""

    image = (3, 32, 32)

    def __init__(self, w=1):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4 * w, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4 * w)
        self.layer1 = self.stage(4 * w, 4 * w, 1)
        self.layer2 = self.stage(4 * w, 8 * w, 2)
        self.layer3 = self.stage(8 * w, 16 * w, 2)
        self.layer4 = self.stage(16 * w, 32 * w, 2)
        self.linear = nn.Linear(32 * w, 10)

    @staticmethod
    def stage(c_in, c_out, stride):
        return nn.Sequential(BasicBlock(c_in, c_out, stride), BasicBlock(c_out, c_out, 1))

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.linear(x.mean((2, 3)))


class Vgg16Bn(nn.Module):
    """For 32x32x3 images: configuration D at 4w to 32w channels, one linear layer as classifier."""

    image = (3, 32, 32)
    # Channels in units of w; None is a max-pool.
    channels = [4, 4, None, 8, 8, None, 16, 16, 16, None, 32, 32, 32, None, 32, 32, 32, None]

    def __init__(self, w=1):
        super().__init__()
        layers, c_in = [], 3
        for c in self.channels:
            if c is None:
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(c_in, c * w, 3, padding=1), nn.BatchNorm2d(c * w), nn.ReLU()]
                c_in = c * w
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(c_in, 10)

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


NETWORKS = {"lenet": LeNet, "lenet_cifar": LeNetCifar, "resnet18": ResNet18, "vgg16_bn": Vgg16Bn}


def cross_entropy(logits, labels):
    """Softmax cross-entropy of each image."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits, labels):
    """Carlini & Wagner's `-max(z_y - max_{j != y} z_j + 50, 0)` of each image; an attack maximises it."""
    true = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], -torch.inf).max(1).values
    return -torch.relu(true - others + 50.0)


def freeze_running_stats(model, frozen=True):
    """Makes train-mode forward passes leave the running statistics as they are, or move them again."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0 if frozen else 0.1


def pgd_step(model, loss, x, labels, clean, eps, step_size):
    """One l-infinity PGD step on the summed loss: step, project on the ball, clamp to [0, 1]. Returns x and dx."""
    x = x.detach().requires_grad_()
    (dx,) = torch.autograd.grad(loss(model(x), labels).sum(), x)
    moved = x.detach() + step_size * dx.sign()
    return moved.clamp(clean - eps, clean + eps).clamp(0.0, 1.0), dx
